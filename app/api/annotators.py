"""A study's raters: invited, given a new link, revoked by researchers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session
from starlette.responses import Response

from app.api.dependencies import After, LimitOrAll, Researcher, Transaction, Viewer, problems
from app.api.pages import page_of
from app.api.schemas import Answer, Page
from app.api.studies import StudyId, find_study, lock_open_study, lock_study
from app.audit import note
from app.auth import Principal
from app.db.models import Annotator, ApiKey, Role, Study, WebSession
from app.errors import Problem, not_found
from app.idempotency import Idempotent, Once, created
from app.keys import create_key, hash_secret, new_secret
from app.settings import get_settings
from app.studies.creation import SubsetTaken, add_annotator
from app.studies.places import exclude
from app.studies.progress import progress
from deft_engine.base import Name, Spec, Text

router = APIRouter(prefix="/studies/{study_id}/annotators", tags=["studies"])

AnnotatorId = Annotated[str, Path(pattern=r"^[^\x00]+$", max_length=100)]


class NewAnnotator(Spec):
    """A rater of some of a study's subsets."""

    name: Name
    subsets: list[Annotated[Text, Field(min_length=1, max_length=500)]] = Field(min_length=1, max_length=1000)


class CreatedAnnotator(Answer):
    """A rater's access; ``key`` and ``link`` are shown this once."""

    id: str
    object: Literal["annotator"] = "annotator"
    name: str
    subsets: list[str]
    key: str
    link: str


class RenewedLink(Answer):
    """A rater's new personal link, shown this once."""

    id: str
    object: Literal["annotator"] = "annotator"
    name: str
    link: str


class AnnotatorAnswer(Answer):
    """A rater and how far they are."""

    id: str
    object: Literal["annotator"] = "annotator"
    name: str
    subsets: list[str]
    key_id: str
    revoked: bool
    excluded: bool
    """Removed with their votes: none of them counts, and their pairs are free for others."""
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class _LinkRequest:
    """A researcher's request for a rater's personal link, which is shown this once."""

    study_id: str
    session: Session
    caller: Principal
    once: Once
    base_url: str

    def answer(self, give: Callable[[Study, str], BaseModel]) -> Response:
        """201 with what ``give`` answers for the study, locked and open, and the secret of a new link.

        Raises:
            Problem: 404; 409 after unblinding.
        """

        def create() -> Response:
            study = lock_open_study(self.session, self.study_id)
            return created(give(study, new_secret()), f"/studies/{study.id}/annotators")

        return self.once.answer(self.session, self.caller, create)

    def link(self, secret: str) -> str:
        """The address to send to the rater."""
        return f"{self.base_url.rstrip('/')}/annotate/{secret}"


def _link_request(
    study_id: StudyId, request: Request, session: Transaction, caller: Researcher, once: Idempotent
) -> _LinkRequest:
    base_url = get_settings().public_url or str(request.base_url)
    return _LinkRequest(study_id, session, caller, once, base_url)


LinkRequest = Annotated[_LinkRequest, Depends(_link_request)]


@router.post(
    "",
    operation_id="add_annotator",
    status_code=201,
    response_model=CreatedAnnotator,
    responses=problems(409),
)
def make_annotator(asked: NewAnnotator, request: LinkRequest) -> Response:
    """Invite a rater: a key for scripts and a personal link for a browser, both shown this once."""
    session = request.session

    def invite(study: Study, secret: str) -> CreatedAnnotator:
        key, text = create_key(session, name=f"{asked.name} ({study.name})"[:200], role=Role.ANNOTATOR)
        try:
            annotator = add_annotator(session, study, asked.name, asked.subsets, key, hash_secret(secret))
        except SubsetTaken as error:
            raise Problem(409, "subset_taken", "The subset has an annotator", str(error)) from error
        note(session, request.caller, "study.invite", study.id, {"annotator": annotator.id})
        return CreatedAnnotator(
            id=annotator.id,
            name=annotator.name,
            subsets=annotator.subsets,
            key=text,
            link=request.link(secret),
        )

    return request.answer(invite)


@router.get("", operation_id="list_annotators", responses=problems())
def list_annotators(
    study_id: StudyId,
    session: Transaction,
    caller: Viewer,
    limit: LimitOrAll = None,
    after: After = None,
) -> Page[AnnotatorAnswer]:
    """All raters of the study with the number of pairs that they rated, and of those that are theirs."""
    study = find_study(session, study_id)
    raters, has_more = page_of(progress(session, study), lambda rater: rater.id, limit=limit, after=after)
    return Page(data=[AnnotatorAnswer.model_validate(rater) for rater in raters], has_more=has_more)


@router.post(
    "/{annotator_id}/link",
    operation_id="renew_annotator_link",
    status_code=201,
    response_model=RenewedLink,
    responses=problems(409),
)
def renew_link(annotator_id: AnnotatorId, request: LinkRequest) -> Response:
    """Give a rater a new personal link. The old one and the browsers it logged in end; votes stay."""
    session = request.session

    def renew(study: Study, secret: str) -> RenewedLink:
        annotator, key = _find(session, study, annotator_id)
        if key.revoked_at is not None:
            raise Problem(
                409,
                "annotator_revoked",
                "The annotator was revoked",
                "invite them again: their subsets are free, and their votes stay",
            )
        annotator.link_hash = hash_secret(secret)
        session.execute(sa.delete(WebSession).where(WebSession.key_id == key.id))
        note(session, request.caller, "study.renew_link", study.id, {"annotator": annotator.id})
        return RenewedLink(id=annotator.id, name=annotator.name, link=request.link(secret))

    return request.answer(renew)


@router.delete("/{annotator_id}", operation_id="revoke_annotator", responses=problems(409))
def revoke_annotator(
    study_id: StudyId,
    annotator_id: AnnotatorId,
    session: Transaction,
    caller: Researcher,
    votes: Annotated[
        Literal["keep", "exclude"], Query(description="Whether the votes they cast go on counting.")
    ] = "keep",
) -> AnnotatorAnswer:
    """End a rater's access, by key and by link, at once and for good.

    With `votes=exclude`, none of their votes counts any more and their pairs are free for others, for good;
    the votes stay in the export, marked. Not after unblinding: who counts is settled before that.
    """
    study = lock_study(session, study_id) if votes == "keep" else lock_open_study(session, study_id)
    annotator, key = _find(session, study, annotator_id)
    if key.revoked_at is None:
        key.revoked_at = datetime.now(UTC)
        note(session, caller, "study.revoke", study.id, {"annotator": annotator.id})
    if votes == "exclude" and annotator.excluded_at is None:
        exclude(session, annotator)
        note(session, caller, "study.exclude", study.id, {"annotator": annotator.id})
    session.flush()
    (rater,) = (rater for rater in progress(session, study) if rater.id == annotator.id)
    return AnnotatorAnswer.model_validate(rater)


def _find(session: Session, study: Study, annotator_id: str) -> tuple[Annotator, ApiKey]:
    annotator = session.get(Annotator, annotator_id)
    if annotator is None or annotator.study_id != study.id:
        raise not_found("annotator", annotator_id)
    return annotator, session.get_one(ApiKey, annotator.key_id)
