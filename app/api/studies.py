"""Studies for researchers: made from two evaluated jobs, rated by people, read as figures."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Annotated, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Path
from pydantic import Field, StringConstraints
from sqlalchemy.orm import Session
from starlette.responses import Response

from app.api.dependencies import After, Limit, Researcher, Transaction, Viewer, problems
from app.api.pages import newest_first
from app.api.schemas import Answer, Page
from app.audit import note
from app.db.models import Study
from app.errors import Problem, not_found
from app.idempotency import Idempotent, created
from app.store import get_store
from app.studies.creation import CRITERIA, Protocol, StudyDesign, create_study
from app.studies.results import (
    Exclusions,
    RaterFigures,
    export_csv,
    results,
    study_warnings,
    subset_sizes,
)
from app.studies.statistics import Agreement, Outcome
from deft_engine.base import Name, Spec, Text

router = APIRouter(prefix="/studies", tags=["studies"])

StudyId = Annotated[str, Path(pattern=r"^[^\x00]+$", max_length=100)]


class NewStudy(Spec):
    """A comparison of the answers of two jobs that were evaluated on the same dataset."""

    name: Name
    a: Name
    """The first job; wins and losses are told from its side."""
    b: Name
    per_subset: int = Field(125, ge=1, le=100_000)
    """Prompts of each subset (the paper: 125); where fewer are there, all are used, with a warning."""
    protocol: Protocol = "paper"
    """``paper``: each subset has its own annotator. ``rigorous``: annotators may overlap."""
    criteria: Annotated[Text, StringConstraints(min_length=1, max_length=4000)] = CRITERIA
    """What raters are asked; shown with every pair."""
    seed: int = Field(42, ge=0, le=2**32 - 1)
    """Chooses the prompts. The sides are drawn from the system's randomness, which nobody can recompute."""


class StudyAnswer(Answer):
    """A study. Its sample does not change any more; ``manifest_sha256`` is the hash of all of it."""

    id: str
    object: Literal["study"] = "study"
    name: str
    status: Literal["open", "closed"]
    a: str
    b: str
    per_subset: int
    protocol: Protocol
    criteria: str
    seed: int
    manifest_sha256: str
    subsets: dict[str, int]
    """Pairs of each subset."""
    warnings: list[str]
    created_at: datetime
    unblinded_at: datetime | None


class Results(Answer):
    """What the standing votes say, late ones included: wins, ties and losses of ``a`` against ``b``.

    Intervals are 95% Wilson intervals, the sign test is exact and two-sided, ``left`` is the share of the
    left side among the votes for a side. Under ``rigorous`` a pair can have several votes, which are not
    independent.
    """

    object: Literal["study.results"] = "study.results"
    study: str
    a: str
    b: str
    unblinded_at: datetime | None
    subsets: dict[str, Outcome]
    harmless: Outcome
    helpful: Outcome
    total: Outcome
    agreement: Agreement
    raters: list[RaterFigures]
    exclusions: Exclusions


@router.post(
    "", operation_id="create_study", status_code=201, response_model=StudyAnswer, responses=problems(409)
)
def make_study(asked: NewStudy, session: Transaction, caller: Researcher, once: Idempotent) -> Response:
    """Freeze a sample of the prompts that both jobs answered, chosen before any answer is read."""

    def create() -> Response:
        design = StudyDesign(**asked.model_dump())
        study = create_study(session, get_store(), design, caller.key_id)
        note(session, caller, "study.create", study.id, {"a": design.a, "b": design.b})
        return created(_shown(session, study), f"/studies/{study.id}")

    return once.answer(session, caller, create)


@router.get("", operation_id="list_studies", responses=problems())
def list_studies(
    session: Transaction, caller: Viewer, limit: Limit = 20, after: After = None
) -> Page[StudyAnswer]:
    """Studies, newest first."""
    studies, has_more = newest_first(session, Study, limit=limit, after=after)
    return Page(data=[_shown(session, study) for study in studies], has_more=has_more)


@router.get("/{study_id}", operation_id="retrieve_study", responses=problems())
def retrieve_study(study_id: StudyId, session: Transaction, caller: Viewer) -> StudyAnswer:
    """One study."""
    return _shown(session, find_study(session, study_id))


@router.get("/{study_id}/results", operation_id="study_results", responses=problems())
def study_results(study_id: StudyId, session: Transaction, caller: Researcher) -> Results:
    """The figures so far; after unblinding they are final."""
    study = find_study(session, study_id)
    found = results(session, study.id)
    return Results(
        study=study.id,
        a=study.a_job_id,
        b=study.b_job_id,
        unblinded_at=study.unblinded_at,
        **{field.name: getattr(found, field.name) for field in fields(found)},
    )


@router.get(
    "/{study_id}/export.csv",
    operation_id="export_study",
    response_class=Response,
    responses={**problems(), 200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def export_study(study_id: StudyId, session: Transaction, caller: Researcher) -> Response:
    """Every standing vote with its pair, a row each; opens in a spreadsheet without running a formula."""
    study = find_study(session, study_id)
    headers = {"Content-Disposition": f'attachment; filename="{study.id}.csv"'}
    return Response(export_csv(session, study.id), headers=headers, media_type="text/csv; charset=utf-8")


@router.post("/{study_id}/unblind", operation_id="unblind_study", responses=problems())
def unblind_study(study_id: StudyId, session: Transaction, caller: Researcher) -> StudyAnswer:
    """Close the study for good: no vote is taken or undone after this, and it stands on the audit log."""
    study = lock_study(session, study_id)
    if study.unblinded_at is None:
        study.unblinded_at = session.scalar(sa.select(sa.func.clock_timestamp()))
        note(session, caller, "study.unblind", study.id, {"manifest_sha256": study.manifest_sha256})
    return _shown(session, study)


def find_study(session: Session, study_id: str) -> Study:
    """The study with this id.

    Raises:
        Problem: 404.
    """
    study = session.get(Study, study_id)
    if study is None:
        raise not_found("study", study_id)
    return study


def lock_study(session: Session, study_id: str) -> Study:
    """The study with this id, its row locked, so that what is decided about it is decided one by one.

    Raises:
        Problem: 404.
    """
    study = session.get(Study, study_id, with_for_update=True)
    if study is None:
        raise not_found("study", study_id)
    return study


def lock_open_study(session: Session, study_id: str) -> Study:
    """As :func:`lock_study`.

    Raises:
        Problem: 404; 409 after unblinding.
    """
    study = lock_study(session, study_id)
    if study.unblinded_at is not None:
        raise Problem(
            409,
            "study_closed",
            "The study is closed",
            "it was unblinded; make a new study to ask more raters",
        )
    return study


def _shown(session: Session, study: Study) -> StudyAnswer:
    return StudyAnswer(
        id=study.id,
        name=study.name,
        status="open" if study.unblinded_at is None else "closed",
        a=study.a_job_id,
        b=study.b_job_id,
        per_subset=study.per_subset,
        protocol=study.protocol,
        criteria=study.criteria,
        seed=study.seed,
        manifest_sha256=study.manifest_sha256,
        subsets=subset_sizes(session, study.id),
        warnings=study_warnings(session, study),
        created_at=study.created_at,
        unblinded_at=study.unblinded_at,
    )
