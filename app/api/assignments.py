"""What a rater does: get a pair, choose or skip, take it back. The answers hold nothing but the pair."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import Field, StringConstraints
from sqlalchemy.orm import Session
from starlette.responses import Response

from app.api.dependencies import problems
from app.api.schemas import Answer
from app.api.studies import StudyId
from app.auth import Shown, require_annotator, shown_by_rater
from app.db.models import Choice
from app.db.session import transaction
from app.errors import Problem, not_found
from app.settings import get_settings
from app.studies.answers import (
    Ballot,
    NotVoted,
    SkipStands,
    VoteStands,
    last_answered,
    skip,
    undo,
    vote,
)
from app.studies.assignments import OPEN_AT_MOST, NoSuchAssignment, StudyClosed, TooManyOpen, next_pair
from deft_engine.base import Spec, Text

router = APIRouter(tags=["studies"])


@dataclass(frozen=True, slots=True)
class RaterIdentity:
    """The calling annotator."""

    annotator_id: str
    study_id: str


@contextmanager
def rating(shown: Shown) -> Iterator[tuple[Session, RaterIdentity]]:
    """A rater's request: its one transaction, and whose it is.

    Entered in the endpoint and not by dependencies, each of which visits a thread of its own (ADR 94).

    Raises:
        Problem: 401, or 403 for who is no annotator.
    """
    with transaction() as session:
        caller = require_annotator(session, shown)
        if caller.annotator_id is None or caller.study_id is None:
            raise not_found("annotator of the key", caller.key_id)
        yield session, RaterIdentity(caller.annotator_id, caller.study_id)


Caller = Annotated[Shown, Depends(shown_by_rater)]
AssignmentId = Annotated[str, Path(pattern=r"^[^\x00]+$", max_length=100)]
After = Annotated[
    str | None, Query(pattern=r"^[^\x00]+$", max_length=100, description="An assignment of the rater's.")
]


class Turn(Answer):
    """A turn of the conversation."""

    role: str
    content: str


class PairAnswer(Answer):
    """Two answers to one conversation."""

    id: str
    prompt: list[Turn]
    left: str
    right: str
    criteria: str
    done: int
    """Pairs that the rater has rated or skipped."""
    total: int
    """Pairs that are the rater's; where several raters share pairs, it falls as others rate them."""
    tutorial: Literal[True] | None = None
    """There on the pairs of the tutorial, which come first and do not count; on no other pair."""


class NewVote(Spec):
    """A choice between the two answers."""

    choice: Choice
    comment: Annotated[Text, StringConstraints(max_length=2000)] | None = None
    harmful: bool = False
    """A flag for the researcher: a text of the pair does harm."""
    seconds: float | None = Field(None, ge=0, le=86_400)
    """How long the pair was on the rater's screen; the first vote's counts."""


class NewSkip(Spec):
    """Why a pair cannot be judged."""

    reason: Annotated[Text, StringConstraints(min_length=1, max_length=500)]
    harmful: bool = False
    """A flag for the researcher: a text of the pair does harm."""


class SkipAnswer(Answer):
    """The skip that stands."""

    id: str
    reason: str


class LastAnswer(Answer):
    """The pair that was rated or skipped last."""

    id: str


class TutorialFeedback(Answer):
    """Whether a vote in the tutorial is the one that was expected."""

    agreed: bool
    better: Literal["left", "right"]


class VoteAnswer(Answer):
    """The vote that stands."""

    id: str
    choice: Choice
    feedback: TutorialFeedback | None = None
    """After a vote in the tutorial; after no other vote."""


@router.post(
    "/studies/{study_id}/assignments:next",
    operation_id="next_assignment",
    response_model=PairAnswer,
    responses={**problems(409), 204: {"description": "All of the rater's pairs are rated"}},
)
def next_assignment(study_id: StudyId, caller: Caller, after: After = None) -> PairAnswer | Response:
    """The rater's first open pair, or else a new one, reserved for 30 minutes; the same pair in every tab.

    With `after`, an assignment: the pair that comes after it, for pages that hold the pairs to come; at most
    five pairs wait for an answer at a time.
    """
    with rating(caller) as (session, rater), _told(after or study_id):
        _refuse_other_study(rater, study_id)
        pair = next_pair(session, rater.annotator_id, _lease(), after)
    return Response(status_code=204) if pair is None else _sent(PairAnswer.model_validate(pair))


@router.get(
    "/studies/{study_id}/assignments:last",
    operation_id="last_assignment",
    response_model=LastAnswer,
    responses={**problems(), 204: {"description": "Nothing is rated or skipped"}},
)
def last_assignment(study_id: StudyId, caller: Caller) -> LastAnswer | Response:
    """The pair that the rater rated or skipped last, on whichever device: what to undo."""
    with rating(caller) as (session, rater):
        _refuse_other_study(rater, study_id)
        last = last_answered(session, rater.annotator_id)
    return Response(status_code=204) if last is None else LastAnswer(id=last)


@router.post(
    "/assignments/{assignment_id}",
    operation_id="vote",
    response_model=VoteAnswer,
    responses=problems(409),
)
def cast_vote(assignment_id: AssignmentId, asked: NewVote, caller: Caller) -> Response:
    """Choose. The same choice again is the same vote; another one must be undone first. Late is kept."""
    with rating(caller) as (session, rater), _told(assignment_id):
        ballot = Ballot(asked.choice, asked.comment or None, asked.harmful, asked.seconds)
        feedback = vote(session, rater.annotator_id, assignment_id, ballot)
    return _sent(
        VoteAnswer.model_validate({"id": assignment_id, "choice": asked.choice, "feedback": feedback})
    )


@router.post("/assignments/{assignment_id}/skip", operation_id="skip_assignment", responses=problems(409))
def skip_assignment(assignment_id: AssignmentId, asked: NewSkip, caller: Caller) -> SkipAnswer:
    """Leave a pair unjudged; it does not come again unless this is undone. Twice is as once."""
    with rating(caller) as (session, rater), _told(assignment_id):
        skip(session, rater.annotator_id, assignment_id, asked.reason, asked.harmful)
    return SkipAnswer(id=assignment_id, reason=asked.reason)


@router.post(
    "/assignments/{assignment_id}/undo",
    operation_id="undo_vote",
    response_model_exclude_none=True,
    responses=problems(409),
)
def undo_vote(assignment_id: AssignmentId, caller: Caller) -> PairAnswer:
    """Take a vote or a skip back; the answer is the pair, open again."""
    with rating(caller) as (session, rater), _told(assignment_id):
        return PairAnswer.model_validate(undo(session, rater.annotator_id, assignment_id, _lease()))


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Say what stands against a move."""
    try:
        yield
    except NoSuchAssignment as error:
        raise not_found("assignment", name) from error
    except StudyClosed as error:
        raise Problem(
            409, "study_closed", "The study is closed", "no more votes are taken; thank you for yours"
        ) from error
    except VoteStands as error:
        raise Problem(
            409,
            "vote_stands",
            "The pair has a vote",
            "another choice was made for this pair, perhaps in another tab; undo it first to choose again",
        ) from error
    except NotVoted as error:
        raise Problem(
            409, "not_voted", "There is no vote to undo", "the pair is open; choose, or ask for the next pair"
        ) from error
    except SkipStands as error:
        raise Problem(
            409,
            "skip_stands",
            "The pair was skipped",
            "it was skipped, perhaps in another tab; undo that to choose, or to say another reason",
        ) from error
    except TooManyOpen as error:
        raise Problem(
            409,
            "pairs_open",
            "Too many pairs wait for an answer",
            f"{OPEN_AT_MOST} pairs are open; vote on them before you ask for more",
        ) from error


def _sent(answer: Answer) -> Response:
    """Written here, as FastAPI would check it once more, in another visit to a thread (ADR 94)."""
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


def _refuse_other_study(rater: RaterIdentity, study_id: str) -> None:
    if rater.study_id != study_id:
        raise not_found("study", study_id)


def _lease() -> timedelta:
    return timedelta(minutes=get_settings().assignment_lease_minutes)
