"""The rater's page behind a personal link, and the researcher's page of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

import sqlalchemy as sa
from fastapi import APIRouter, Cookie, Request
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, RedirectResponse, Response

from app.api.assignments import AssignmentId, Caller, rating
from app.api.dependencies import VisitorTransaction
from app.api.studies import StudyId, find_study
from app.auth import find_logged_in, reads_by_key, start_web_session
from app.cookies import RATER_COOKIE, SESSION_COOKIE
from app.db.models import Annotator, ApiKey, Assignment, Job, Role, Study
from app.errors import Problem, not_found
from app.keys import hash_secret, is_usable
from app.settings import get_settings
from app.studies.looks import look_alphas, looks
from app.studies.progress import progress
from app.studies.results import (
    Figures,
    hidden,
    results,
    study_warnings,
    subset_sizes,
    systems_of,
)
from app.studies.statistics import Outcome
from app.web.markdown import to_html
from app.web.render import render

router = APIRouter(include_in_schema=False)

_LETTERS = "abcdefghijkl"

SessionCookie = Annotated[str | None, Cookie(alias=SESSION_COOKIE)]
RaterCookie = Annotated[str | None, Cookie(alias=RATER_COOKIE)]


@router.get("/annotate/{token}")
def open_link(token: str, request: Request, session: VisitorTransaction) -> Response:
    """Log a rater in by their personal link; the page then takes the link out of the address bar."""
    row = session.execute(
        sa.select(Annotator, ApiKey)
        .join(ApiKey, ApiKey.id == Annotator.key_id)
        .where(Annotator.link_hash == hash_secret(token), is_usable())
    ).one_or_none()
    if row is None:
        return _refused(404, "This link does not work", "Ask the person who sent it for a new one.")
    annotator, key = row
    response = _rating_page(session, annotator)
    response.set_cookie(
        RATER_COOKIE,
        start_web_session(session, key),
        max_age=int(3600 * get_settings().session_hours),
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return response


@router.get("/annotate")
def go_on(session: VisitorTransaction, cookie: RaterCookie = None) -> Response:
    """The rater's page again, after a reload."""
    key = find_logged_in(session, cookie) if cookie else None
    annotator = session.scalar(sa.select(Annotator).where(Annotator.key_id == key.id)) if key else None
    if annotator is None:
        return _refused(401, "You are not logged in", "Open your personal link again; your votes are kept.")
    return _rating_page(session, annotator)


@router.get("/annotate/pairs/{assignment_id}")
def rendered_pair(assignment_id: AssignmentId, caller: Caller) -> JSONResponse:
    """A pair's texts as HTML from their Markdown, for the page of a study that has them so."""
    with rating(caller) as (session, rater):
        assignment = session.get(Assignment, assignment_id)
        if assignment is None or assignment.annotator_id != rater.annotator_id:
            raise not_found("assignment", assignment_id)
        item, a_is_left = assignment.item, assignment.a_is_left
    a, b = to_html(item.response_a), to_html(item.response_b)
    left, right = (a, b) if a_is_left else (b, a)
    return JSONResponse(
        {"prompt": [to_html(turn["content"]) for turn in item.prompt], "left": left, "right": right}
    )


@router.get("/blank")
def blank_page() -> Response:
    """Where a rater's quick exit leads: nothing is on it, and nothing leads back."""
    return render("blank.html")


def _rating_page(session: Session, annotator: Annotator) -> Response:
    """The page of one rater; their id keeps the answers apart that wait in a browser used by several."""
    texts = session.get_one(Study, annotator.study_id).texts
    return render("annotate.html", study_id=annotator.study_id, annotator_id=annotator.id, texts=texts)


def _refused(status: int, title: str, advice: str) -> Response:
    return render("annotate_refused.html", status=status, title=title, advice=advice)


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a bar: where it starts and how long it is, in percent of the bar."""

    name: str
    start: float
    length: float


@dataclass(frozen=True, slots=True)
class Bar:
    """Win, tie and lose shares of one aspect or subset, as in Fig. 3, with what the table beside says."""

    name: str
    outcome: Outcome
    segments: tuple[Segment, ...]


@router.get("/studies/{study_id}/view")
def view_study(
    study_id: StudyId, request: Request, session: VisitorTransaction, cookie: SessionCookie = None
) -> Response:
    """Progress, bars of win, tie and lose with their table, and the form that invites raters."""
    if not reads_by_key(request, Role.RESEARCHER):
        key = find_logged_in(session, cookie) if cookie else None
        if key is not None and key.role is Role.VIEWER:
            raise Problem(
                403,
                "forbidden",
                "Not allowed",
                "results need the role researcher; ask an admin for a key",
            )
        if key is None or key.role is Role.ANNOTATOR:
            return RedirectResponse(f"/login?next={quote(f'/studies/{study_id}/view')}", 303)
    study = find_study(session, study_id)
    found = results(session, study)
    sizes = subset_sizes(session, study.id)
    raters = progress(session, study)
    systems = dict(zip(_LETTERS, jobs_of(session, study.id), strict=False))
    taken: set[str] = set()
    if study.protocol == "paper":
        taken = {subset for rater in raters if not rater.revoked for subset in rater.subsets}
    return render(
        "study.html",
        study=study,
        systems=systems,
        sizes=sizes,
        warnings=study_warnings(session, study),
        raters=raters,
        free_subsets=[subset for subset in sizes if subset not in taken],
        hidden=hidden(study),
        found=found,
        bars=bars(found, systems),
        bars_after=bars(found.after_exclusion, systems) if found.after_exclusion else [],
        rules=study.exclusion,
        taken=looks(session, study),
        alphas=look_alphas(study),
    )


def jobs_of(session: Session, study_id: str) -> list[Job]:
    """The jobs that a study compares, in its order."""
    return [session.get_one(Job, job_id) for job_id in systems_of(session, study_id)]


def bars(found: Figures, systems: Mapping[str, Job]) -> list[Bar]:
    """A bar for each aspect and subset of two systems; of more, one for every two systems."""
    if len(found.pairs) == 1:
        alone = found.pairs[0]
        pooled = {"harmless": alone.harmless, "helpful": alone.helpful, "total": alone.total}
        return [bar(name, one) for name, one in (pooled | alone.subsets).items()]
    letters = {job.id: letter for letter, job in systems.items()}
    return [bar(f"{letters[pair.a]} against {letters[pair.b]}", pair.total) for pair in found.pairs]


def bar(name: str, outcome: Outcome) -> Bar:
    """The segments of one bar; none where there is no vote."""
    segments: list[Segment] = []
    start = 0.0
    for part, rate in (("win", outcome.win), ("tie", outcome.tie), ("lose", outcome.lose)):
        if rate.share:
            segments.append(Segment(part, round(start, 3), round(100 * rate.share, 3)))
            start += 100 * rate.share
    return Bar(name, outcome, tuple(segments))
