"""What a study found, for researchers: figures, planned looks, and every vote."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from app.api.dependencies import Limit, Researcher, Transaction, problems
from app.api.downloads import file_answers, send_made
from app.api.schemas import Answer, Page
from app.api.studies import StudyId, find_study, lock_open_study
from app.api.study_requests import Turn
from app.audit import note
from app.db.models import Study
from app.errors import Problem
from app.idempotency import Idempotent, created
from app.studies.agreement import Agreement
from app.studies.disagreement import Opinion, disagreements
from app.studies.export import export_csv
from app.studies.judges import JudgeFigures
from app.studies.looks import Look, NoLook, looks, take_look
from app.studies.preferences import Ties, preferences_jsonl
from app.studies.raters import RaterFigures
from app.studies.results import (
    AfterExclusion,
    Exclusions,
    PairResults,
    SystemStrength,
    hidden,
    results,
    systems_of,
    the_two,
)
from app.studies.statistics import Outcome

router = APIRouter(prefix="/studies", tags=["studies"])


class NumberedPairAnswer(Answer):
    """A pair of the study; ``id`` is its number."""

    id: int
    sample_id: str
    subset: str
    a: str
    b: str
    prompt: list[Turn]
    response_a: str
    response_b: str


class DisagreementAnswer(NumberedPairAnswer):
    """A pair on which raters differ; ``winner`` is told from the side of ``a``."""

    votes: list[Opinion]


class LookAnswer(Answer):
    """A planned interim look."""

    object: Literal["study.look"] = "study.look"
    number: int
    of: int
    wins: int
    ties: int
    losses: int
    p_value: float | None
    alpha: float
    crossed: bool
    created_at: datetime


class Results(Answer):
    """What the standing votes say, late ones included: wins, ties and losses of ``a`` against ``b``.

    ``pairs`` has every two systems. Where there are more than two, ``subsets``, ``harmless``, ``helpful`` and
    ``total`` are null, and ``strengths`` ranks the systems by Bradley-Terry (ties are half wins), with
    bootstrap intervals over prompts. Repeats, gold, the tutorial and raters who were removed with their votes
    do not count.

    Intervals are 95% Wilson intervals, the sign test is exact and two-sided, ``left`` is the share of the
    left side among the votes for a side. Under ``rigorous`` a pair can have several votes, which are not
    independent.

    ``win_rate`` counts a tie as half a win; its interval holds for other raters and other pairs, as the votes
    of a rater, and those on a pair, belong together. ``length_controlled`` is the win rate between answers of
    one length. ``after_exclusion`` has the figures without the raters who break one of the study's rules.

    While ``hidden``, results are read after unblinding, and there are figures of raters alone.
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
    hidden: bool
    after_exclusion: AfterExclusion | None
    judges: list[JudgeFigures]
    looks: list[Look]


@router.get("/{study_id}/results", operation_id="study_results", responses=problems())
def study_results(study_id: StudyId, session: Transaction, caller: Researcher) -> Results:
    """The figures so far; after unblinding they are final."""
    study = find_study(session, study_id)
    found = results(session, study)
    a, b = the_two(systems_of(session, study.id))
    return Results(
        study=study.id,
        a=a,
        b=b,
        unblinded_at=study.unblinded_at,
        hidden=hidden(study),
        looks=looks(session, study),
        **{field.name: getattr(found, field.name) for field in fields(found)},
    )


@router.get(
    "/{study_id}/export.csv",
    operation_id="export_study",
    response_class=Response,
    responses={**problems(409), **file_answers("text/csv")},
)
def export_study(study_id: StudyId, request: Request, session: Transaction, caller: Researcher) -> Response:
    """Every standing vote with its pair, a row each; opens in a spreadsheet without running a formula."""
    study = readable_study(session, study_id)
    headers = {"Content-Disposition": f'attachment; filename="{study.id}.csv"'}
    content = export_csv(session, study.id).encode()
    return send_made(request, content, "text/csv; charset=utf-8", headers)


@router.get(
    "/{study_id}/export.jsonl",
    operation_id="export_preferences",
    response_class=Response,
    responses={**problems(409), **file_answers("application/jsonl")},
)
def export_preferences(
    study_id: StudyId,
    request: Request,
    session: Transaction,
    caller: Researcher,
    ties: Annotated[
        Ties, Query(description="Pairs without a preference: out, or in both orders.")
    ] = "leave_out",
) -> Response:
    """What raters prefer, a row a pair, in the format `pairwise` of datasets."""
    study = readable_study(session, study_id)
    headers = {"Content-Disposition": f'attachment; filename="{study.id}.jsonl"'}
    return send_made(request, preferences_jsonl(session, study, ties), "application/jsonl", headers)


@router.get("/{study_id}/disagreements", operation_id="study_disagreements", responses=problems(409))
def study_disagreements(
    study_id: StudyId,
    session: Transaction,
    caller: Researcher,
    subset: Annotated[str | None, Query(max_length=500, pattern=r"^[^\x00]*$")] = None,
    limit: Limit = 20,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="The last pair's id.")] = 0,
) -> Page[DisagreementAnswer]:
    """The pairs on which raters differ, in the study's order, with who says what."""
    study = readable_study(session, study_id)
    found, has_more = disagreements(session, study, subset=subset, after=after, limit=limit)
    data = [DisagreementAnswer(**asdict(pair), votes=votes) for pair, votes in found]
    return Page(data=data, has_more=has_more)


@router.post(
    "/{study_id}/looks",
    operation_id="look_at_study",
    status_code=201,
    response_model=LookAnswer,
    responses=problems(409),
)
def look_at_study(study_id: StudyId, session: Transaction, caller: Researcher, once: Idempotent) -> Response:
    """Take the next planned interim look, when enough pairs have a vote; it is on the audit log."""
    study = lock_open_study(session, study_id)

    def create() -> Response:
        try:
            look = take_look(session, study)
        except NoLook as why:
            raise Problem(409, "no_look_due", "No interim look is due", str(why)) from None
        note(session, caller, "study.look", study.id, {"number": str(look.number)})
        return created(LookAnswer.model_validate(look), f"/studies/{study.id}/results")

    return once.answer(session, caller, create)


def readable_study(session: Session, study_id: str) -> Study:
    """The study with this id, whose votes may be read.

    Raises:
        Problem: 404; 409 while its results are hidden.
    """
    study = find_study(session, study_id)
    if hidden(study):
        raise Problem(
            409,
            "results_hidden",
            "The results are hidden",
            "the study's votes are read after unblinding; unblind it first, which closes it for good",
        )
    return study
