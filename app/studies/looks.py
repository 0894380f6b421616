"""Interim looks at a study whose results are hidden: when one is due, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from math import ceil

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Study, StudyLook
from app.studies.interim import alphas
from app.studies.results import counted_judgments, subset_sizes
from app.studies.statistics import outcome


class NoLook(Exception):
    """No look is due."""


@dataclass(frozen=True, slots=True)
class Look:
    """A look that was taken: the total of a against b, whose sign test is held against the look's alpha."""

    number: int
    of: int
    wins: int
    ties: int
    losses: int
    p_value: float | None
    alpha: float
    crossed: bool  # the p-value is below alpha: the study can end with this finding
    created_at: datetime


def look_alphas(study: Study) -> tuple[float, ...]:
    """The alpha of each planned look and of the end."""
    return alphas(study.interim_looks + 1, study.boundary) if study.interim_looks else ()


def looks(session: Session, study: Study) -> list[Look]:
    """The looks that were taken, in their order."""
    return [_shown(look, study) for look in _taken(session, study)]


def take_look(session: Session, study: Study) -> Look:
    """Take the next look; the study's row is locked by the caller.

    Raises:
        NoLook: all were taken, or too few pairs have a vote.
    """
    number = len(_taken(session, study)) + 1
    if number > study.interim_looks:
        raise NoLook(f"all {study.interim_looks} planned looks were taken; unblind the study to end it")
    judgments = counted_judgments(session, study.id)
    pairs = sum(subset_sizes(session, study.id).values())
    due = ceil(pairs * number / (study.interim_looks + 1))
    voted = len({vote.item for vote in judgments})
    if voted < due:
        raise NoLook(f"look {number} is due when {due} of {pairs} pairs have a vote; {voted} have one")
    found = outcome(judgments)
    look = StudyLook(
        study_id=study.id,
        number=number,
        wins=found.win.count,
        ties=found.tie.count,
        losses=found.lose.count,
        p_value=found.sign_test.p_value,
        alpha=look_alphas(study)[number - 1],
    )
    session.add(look)
    session.flush()
    session.refresh(look)
    return _shown(look, study)


def _taken(session: Session, study: Study) -> list[StudyLook]:
    return list(
        session.scalars(select(StudyLook).where(StudyLook.study_id == study.id).order_by(StudyLook.number))
    )


def _shown(look: StudyLook, study: Study) -> Look:
    return Look(
        number=look.number,
        of=study.interim_looks,
        wins=look.wins,
        ties=look.ties,
        losses=look.losses,
        p_value=look.p_value,
        alpha=look.alpha,
        crossed=look.p_value is not None and look.p_value < look.alpha,
        created_at=look.created_at,
    )
