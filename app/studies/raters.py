"""Figures of each rater, none of which tells which system won."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Annotator, Assignment, Choice, Purpose, StudyItem, Vote
from app.studies.exclusion import Measured, Rules, broken
from app.studies.statistics import Rate, Winner, rate


@dataclass(frozen=True, slots=True)
class RaterFigures:
    """A rater's votes on pairs, and how they did on what was hidden among them."""

    id: str
    name: str
    votes: int
    late: int
    left: Rate
    gold: Rate  # of the hidden pairs with a known answer, those on which the better one was chosen
    repeats: Rate  # of the pairs judged twice, those judged alike
    seconds: float | None  # median of a vote on a pair, where the rater's browser told it
    excluded_by: list[str]  # the study's rules that leave this rater's votes out after exclusion


@dataclass(frozen=True, slots=True)
class _Row:
    """A standing vote of a rater who was not removed."""

    rater: str
    name: str
    item: str
    purpose: Purpose
    choice: Choice
    winner: Winner
    late: bool
    seconds: float | None


def rater_figures(session: Session, study_id: str, rules: Rules) -> list[RaterFigures]:
    """The raters with a standing vote on a pair, in the order in which they were invited."""
    by_rater: dict[str, list[_Row]] = defaultdict(list)
    for row in _rows(session, study_id):
        by_rater[row.rater].append(row)
    found = (_figures(rows, rules) for rows in by_rater.values())
    return [figures for figures in found if figures.votes]


def winner_of(choice: Choice, a_is_left: bool) -> Winner:
    """Which of a pair's systems a rater chose."""
    if choice is Choice.TIE:
        return "tie"
    return "a" if (choice is Choice.LEFT) == a_is_left else "b"


def _rows(session: Session, study_id: str) -> list[_Row]:
    found = session.execute(
        select(
            Annotator.id,
            Annotator.name,
            Assignment.item_id,
            Assignment.purpose,
            Assignment.a_is_left,
            Vote.choice,
            Vote.late,
            Vote.seconds,
        )
        .join(Assignment, Assignment.annotator_id == Annotator.id)
        .join(StudyItem, StudyItem.id == Assignment.item_id)
        .join(Vote, Vote.assignment_id == Assignment.id)
        .where(StudyItem.study_id == study_id, Vote.undone_at.is_(None), Annotator.excluded_at.is_(None))
        .order_by(Annotator.created_at, Annotator.id)
    )
    return [
        _Row(rater, name, item, purpose, choice, winner_of(choice, a_is_left), late, seconds)
        for rater, name, item, purpose, a_is_left, choice, late, seconds in found
    ]


def _figures(rows: Sequence[_Row], rules: Rules) -> RaterFigures:
    on_pairs = {row.item: row for row in rows if row.purpose is Purpose.PAIR}
    again = [row for row in rows if row.purpose is Purpose.REPEAT and row.item in on_pairs]
    known = [row for row in rows if row.purpose is Purpose.GOLD]
    sides = [row.choice for row in on_pairs.values() if row.choice is not Choice.TIE]
    times = [row.seconds for row in on_pairs.values() if row.seconds is not None]
    left = rate(sides.count(Choice.LEFT), len(sides))
    gold = rate(sum(row.winner == "a" for row in known), len(known))  # a is the better answer
    repeats = rate(sum(row.winner == on_pairs[row.item].winner for row in again), len(again))
    seconds = median(times) if times else None
    measured = Measured(
        gold=(gold.share, gold.n),
        repeats=(repeats.share, repeats.n),
        seconds=(seconds, len(times)),
        left=(left.share, left.n),
    )
    return RaterFigures(
        id=rows[0].rater,
        name=rows[0].name,
        votes=len(on_pairs),
        late=sum(row.late for row in on_pairs.values()),
        left=left,
        gold=gold,
        repeats=repeats,
        seconds=seconds,
        excluded_by=broken(rules, measured),
    )
