"""Pairs on which raters differ, for a researcher to read."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Annotator, Assignment, Purpose, Study, StudyItem, Vote
from app.studies.raters import winner_of
from app.studies.results import systems_of
from app.studies.statistics import Winner


@dataclass(frozen=True, slots=True)
class Opinion:
    """A standing vote on a pair."""

    rater: str
    winner: Winner
    comment: str | None
    harmful: bool


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A pair whose raters do not all say the same; ``id`` is its number in the study."""

    id: int
    sample_id: str
    subset: str
    a: str
    b: str
    prompt: list[Any]
    response_a: str
    response_b: str
    votes: list[Opinion]


def disagreements(
    session: Session, study: Study, *, subset: str | None, after: int, limit: int
) -> tuple[list[Disagreement], bool]:
    """The next pairs behind number ``after``, and whether there are more; raters who were removed are out."""
    opinions = _opinions(session, study.id, subset)
    differing = [item for item, votes in opinions.items() if len({vote.winner for vote in votes}) > 1]
    items = session.scalars(
        select(StudyItem)
        .where(StudyItem.id.in_(differing), StudyItem.position >= after)
        .order_by(StudyItem.position)
        .limit(limit + 1)
    ).all()
    systems = systems_of(session, study.id)
    found = [
        Disagreement(
            id=item.position + 1,
            sample_id=item.sample_id,
            subset=item.subset,
            a=systems[item.system_a],
            b=systems[item.system_b],
            prompt=item.prompt,
            response_a=item.response_a,
            response_b=item.response_b,
            votes=opinions[item.id],
        )
        for item in items[:limit]
    ]
    return found, len(items) > limit


def _opinions(session: Session, study_id: str, subset: str | None) -> dict[str, list[Opinion]]:
    """By item, in the order in which the raters were invited."""
    rows = (
        select(StudyItem.id, Annotator.name, Assignment.a_is_left, Vote.choice, Vote.comment, Vote.harmful)
        .join(Assignment, Assignment.item_id == StudyItem.id)
        .join(Annotator, Annotator.id == Assignment.annotator_id)
        .join(Vote, Vote.assignment_id == Assignment.id)
        .where(
            StudyItem.study_id == study_id,
            Assignment.purpose == Purpose.PAIR,
            Annotator.excluded_at.is_(None),
            Vote.undone_at.is_(None),
        )
        .order_by(Annotator.created_at, Annotator.id)
    )
    if subset is not None:
        rows = rows.where(StudyItem.subset == subset)
    by_item: dict[str, list[Opinion]] = defaultdict(list)
    for item, rater, a_is_left, choice, comment, harmful in session.execute(rows):
        by_item[item].append(Opinion(rater, winner_of(choice, a_is_left), comment, harmful))
    return by_item
