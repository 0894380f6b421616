"""Pairs on which raters differ, for a researcher to read."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Annotator, Assignment, Purpose, Study, StudyItem, Vote
from app.studies.pairs import NumberedPair, numbered_pairs
from app.studies.raters import winner_of
from app.studies.statistics import Winner


@dataclass(frozen=True, slots=True)
class Opinion:
    """A standing vote on a pair."""

    rater: str
    winner: Winner
    comment: str | None
    harmful: bool


def disagreements(
    session: Session, study: Study, *, subset: str | None, after: int, limit: int
) -> tuple[list[tuple[NumberedPair, list[Opinion]]], bool]:
    """The next pairs behind number ``after`` whose raters differ, with what each says; and if there are more.

    Raters who were removed are out.
    """
    opinions = _opinions(session, study.id, subset)
    differing = [item for item, votes in opinions.items() if len({vote.winner for vote in votes}) > 1]
    pairs, has_more = numbered_pairs(session, study, after=after, limit=limit, among=differing)
    return [(pair, opinions[item]) for item, pair in pairs], has_more


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
