"""Studies for researchers: made from evaluated jobs, rated by people, read as figures."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Annotated, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Path, Query
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from app.api.dependencies import After, Limit, Researcher, Transaction, Viewer, problems
from app.api.pages import newest_first
from app.api.schemas import Answer, Page
from app.api.study_requests import NewStudy
from app.audit import note
from app.db.models import Study
from app.errors import Problem, not_found
from app.idempotency import Idempotent, created
from app.store import get_store
from app.studies.creation import create_study, sample
from app.studies.design import Protocol, Texts
from app.studies.export import export_csv
from app.studies.planning import StudyPlan, plan_study
from app.studies.results import (
    Exclusions,
    PairResults,
    RaterFigures,
    SystemStrength,
    results,
    study_warnings,
    subset_sizes,
    systems_of,
    the_two,
)
from app.studies.statistics import Agreement, Outcome

router = APIRouter(prefix="/studies", tags=["studies"])

StudyId = Annotated[str, Path(pattern=r"^[^\x00]+$", max_length=100)]


class StudyAnswer(Answer):
    """A study. Its sample does not change any more; ``manifest_sha256`` is the hash of all that is frozen."""

    id: str
    object: Literal["study"] = "study"
    name: str
    status: Literal["open", "closed"]
    systems: list[str]
    a: str | None
    """The first system where there are two, else null; so are results that are told from its side."""
    b: str | None
    per_subset: int
    pairs_per_prompt: int
    protocol: Protocol
    raters_per_pair: int | None
    repeats: float
    gold: int
    """Hidden pairs with a known answer."""
    gold_share: float
    tutorial: int
    criteria: str
    texts: Texts
    seed: int
    manifest_sha256: str
    subsets: dict[str, int]
    """Pairs of each subset."""
    warnings: list[str]
    created_at: datetime
    unblinded_at: datetime | None


class Results(Answer):
    """What the standing votes say, late ones included: wins, ties and losses of ``a`` against ``b``.

    ``pairs`` has every two systems. Where there are more than two, ``subsets``, ``harmless``, ``helpful`` and
    ``total`` are null, and ``strengths`` ranks the systems by Bradley-Terry (ties are half wins), with
    bootstrap intervals over prompts. Repeats, gold, the tutorial and raters who were removed with their votes
    do not count.

    Intervals are 95% Wilson intervals, the sign test is exact and two-sided, ``left`` is the share of the
    left side among the votes for a side. Under ``rigorous`` a pair can have several votes, which are not
    independent.
    """

    object: Literal["study.results"] = "study.results"
    study: str
    a: str | None
    b: str | None
    unblinded_at: datetime | None
    subsets: dict[str, Outcome] | None
    harmless: Outcome | None
    helpful: Outcome | None
    total: Outcome | None
    pairs: list[PairResults]
    strengths: dict[str, list[SystemStrength]]
    agreement: Agreement
    raters: list[RaterFigures]
    exclusions: Exclusions


@router.post(
    "",
    operation_id="create_study",
    status_code=201,
    response_model=StudyAnswer,
    responses={**problems(409), 200: {"model": StudyPlan, "description": "With dry_run: what it could see"}},
)
def make_study(
    asked: NewStudy,
    session: Transaction,
    caller: Researcher,
    once: Idempotent,
    dry_run: Annotated[bool, Query(description="Plan and tell the power; create nothing.")] = False,
    win_rate: Annotated[
        float, Query(ge=0.51, le=0.99, description="Of the power: wins among decided.")
    ] = 0.6,
    ties: Annotated[float, Query(ge=0, le=0.9, description="Of the power: the share of ties.")] = 0.2,
) -> Response:
    """Freeze a sample of the prompts that all jobs answered, chosen before any answer is read."""
    design = asked.design()
    if dry_run:
        planned = plan_study(design, sample(session, get_store(), design).pairs, win_rate, ties)
        return JSONResponse(planned.model_dump(mode="json"))

    def create() -> Response:
        study = create_study(session, get_store(), design, caller.key_id)
        note(session, caller, "study.create", study.id, {"systems": " ".join(design.systems)})
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
    a, b = the_two(systems_of(session, study.id))
    return Results(
        study=study.id,
        a=a,
        b=b,
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
    systems = systems_of(session, study.id)
    a, b = the_two(systems)
    return StudyAnswer(
        id=study.id,
        name=study.name,
        status="open" if study.unblinded_at is None else "closed",
        systems=systems,
        a=a,
        b=b,
        per_subset=study.per_subset,
        pairs_per_prompt=study.pairs_per_prompt,
        protocol=study.protocol,
        raters_per_pair=study.raters_per_pair,
        repeats=study.repeats,
        gold=study.gold,
        gold_share=study.gold_share,
        tutorial=study.tutorial,
        criteria=study.criteria,
        texts=study.texts,
        seed=study.seed,
        manifest_sha256=study.manifest_sha256,
        subsets=subset_sizes(session, study.id),
        warnings=study_warnings(session, study),
        created_at=study.created_at,
        unblinded_at=study.unblinded_at,
    )
