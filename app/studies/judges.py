"""A model as a rater of its own: its verdicts in both orders, and how far they agree with people's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db.models import ItemKind, StudyItem, StudyVerdict
from app.studies.agreement import cohen_kappa
from app.studies.statistics import POINTS, Judgment, Rate, Winner, rate


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which answer of pair number ``pair`` a judge prefers when a is shown first, and when b is."""

    pair: int
    a_first: Winner
    b_first: Winner


@dataclass(frozen=True, slots=True)
class JudgeFigures:
    """A judge's verdicts; where its two orders differ it says a tie.

    Wins are told from the side of each pair's a, and are null where there are more than two systems.
    """

    name: str
    pairs: int
    win: Rate | None
    tie: Rate | None
    lose: Rate | None
    consistent: Rate  # the same verdict in both orders
    as_people: Rate  # of the pairs with votes, those on which it says what most votes say
    cohen_kappa: float | None  # with what most votes say


class NoSuchPair(Exception):
    """The study has no pair of this number; ``place`` is the verdict's."""

    def __init__(self, place: int, pair: int) -> None:
        super().__init__(f"the study has no pair {pair}")
        self.place = place


def keep_verdicts(session: Session, study_id: str, judge: str, verdicts: Sequence[Verdict]) -> int:
    """Keep a judge's verdicts, the newest of each pair; returns how many pairs it has judged.

    Raises:
        NoSuchPair: a verdict is on a pair that is not in the study.
    """
    items = dict(
        session.execute(
            select(StudyItem.position, StudyItem.id).where(
                StudyItem.study_id == study_id, StudyItem.kind == ItemKind.PAIR
            )
        ).all()
    )
    rows: dict[str, dict[str, str]] = {}
    for place, verdict in enumerate(verdicts):
        if (item := items.get(verdict.pair - 1)) is None:
            raise NoSuchPair(place, verdict.pair)
        rows[item] = {
            "study_id": study_id,
            "judge": judge,
            "item_id": item,
            "a_first": verdict.a_first,
            "b_first": verdict.b_first,
        }
    new = insert(StudyVerdict).values(list(rows.values()))
    newest = {name: new.excluded[name] for name in ("a_first", "b_first")}
    session.execute(new.on_conflict_do_update(index_elements=["study_id", "judge", "item_id"], set_=newest))
    mine = (StudyVerdict.study_id == study_id, StudyVerdict.judge == judge)
    return session.scalar(select(func.count()).select_from(StudyVerdict).where(*mine)) or 0


def judge_figures(
    session: Session, study_id: str, votes: Iterable[Judgment], *, systems: int
) -> list[JudgeFigures]:
    """The study's judges by name; ``votes`` are people's, that count."""
    rows = session.scalars(
        select(StudyVerdict).where(StudyVerdict.study_id == study_id).order_by(StudyVerdict.judge)
    ).all()
    by_judge: dict[str, list[StudyVerdict]] = defaultdict(list)
    for row in rows:
        by_judge[row.judge].append(row)
    people = _most_say(votes) if rows else {}
    return [_figures(judge, verdicts, people, systems) for judge, verdicts in by_judge.items()]


def _figures(
    judge: str, verdicts: Sequence[StudyVerdict], people: Mapping[str, Winner], systems: int
) -> JudgeFigures:
    said = {one.item_id: _both_orders(one) for one in verdicts}
    winners = list(said.values())
    win, tie, lose = (rate(winners.count(winner), len(winners)) for winner in POINTS)
    both = [(said[item], people[item]) for item in said if item in people]
    two = systems == 2
    return JudgeFigures(
        name=judge,
        pairs=len(verdicts),
        win=win if two else None,
        tie=tie if two else None,
        lose=lose if two else None,
        consistent=rate(sum(one.a_first == one.b_first for one in verdicts), len(verdicts)),
        as_people=rate(sum(one == other for one, other in both), len(both)),
        cohen_kappa=cohen_kappa(both),
    )


def _both_orders(verdict: StudyVerdict) -> Winner:
    """What it says where both orders say it, else a tie."""
    said = {verdict.a_first, verdict.b_first}
    return "a" if said == {"a"} else "b" if said == {"b"} else "tie"


def _most_say(votes: Iterable[Judgment]) -> dict[str, Winner]:
    """By item, what most votes say; a tie is half a vote of each."""
    points: dict[str, list[float]] = defaultdict(list)
    for vote in votes:
        points[vote.item].append(POINTS[vote.winner] - 0.5)
    sums = {item: sum(given) for item, given in points.items()}
    return {item: "a" if total > 0 else "b" if total < 0 else "tie" for item, total in sums.items()}
