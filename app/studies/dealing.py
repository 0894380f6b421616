"""Which pair a rater gets next: the tutorial first, then pairs with gold and repeats hidden among them."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

from sqlalchemy import Select, func, select, true
from sqlalchemy.orm import Session

from app.db.models import Annotator, Assignment, ItemKind, Purpose, Standing, Study, StudyItem, StudyPlace
from app.ids import new_id
from app.studies.blinding import a_stands_left, draw
from app.studies.places import take, to_rate

_BETWEEN = 10
"""Pairs that a rater judges between a pair and its repeat, where the study is large enough."""


@dataclass(frozen=True, slots=True)
class Workload:
    """How far a rater is. Dealing changes neither ``done`` nor ``total``, so it is counted once a request."""

    dealt: Counter[Purpose]  # without what was let go
    free: int  # pairs that could be dealt to them
    done: int
    total: int


def workload(session: Session, annotator: Annotator, study: Study) -> Workload:
    """A rater's work: the tutorial, the pairs dealt to them and those still free, and what is due with these.

    The total does not depend on what of it was dealt already, so that it hides which are gold and repeats.
    """
    free = free_pairs(annotator, study).with_only_columns(func.count().label("pairs")).subquery()
    given = (
        select(Assignment.purpose, Assignment.standing, func.count().label("pairs"))
        .where(Assignment.annotator_id == annotator.id, Assignment.standing != Standing.RELEASED)
        .group_by(Assignment.purpose, Assignment.standing)
        .subquery()
    )
    columns = free.c.pairs, given.c.purpose, given.c.standing, given.c.pairs
    rows = session.execute(select(*columns).select_from(free).outerjoin(given, true())).all()
    dealt: Counter[Purpose] = Counter()
    done = 0
    for _, purpose, standing, count in rows:
        if purpose is not None:
            dealt[purpose] += count
            done += count if standing is not Standing.OPEN else 0
    to_deal = rows[0][0]
    pairs = dealt[Purpose.PAIR] + to_deal
    checks = _gold_due(annotator, study, pairs) + _repeats_due(annotator, study, pairs)
    return Workload(dealt, to_deal, done, total=study.tutorial + pairs + checks)


def free_pairs(annotator: Annotator, study: Study) -> Select[str]:
    """Ids of the pairs that could be dealt to a rater now."""
    # NOT IN is hashed whatever the planner believes; NOT EXISTS it makes a nested loop as long as it knows a
    # young table's statistics, and that takes pairs x pairs seen.
    seen = select(Assignment.item_id).where(
        Assignment.annotator_id == annotator.id, Assignment.purpose == Purpose.PAIR
    )
    return select(StudyPlace.item_id).where(
        *to_rate(study), StudyPlace.subset.in_(annotator.subsets), StudyPlace.item_id.not_in(seen)
    )


def due(annotator_id: str, purpose: Purpose, share: float, pairs: int) -> int:
    """How many gold pairs or repeats a rater gets with their first ``pairs`` pairs.

    One in each block of ``1 / share`` pairs, at a place in it that a hash of the rater's id chooses: exact in
    number wherever the rater stops, and the rater, who is never told the id, cannot foresee it.
    """
    blocks = pairs * share
    whole = int(blocks)
    place = int.from_bytes(hashlib.sha256(f"{annotator_id} {purpose} {whole}".encode()).digest()[:8]) / 2**64
    return whole + (blocks - whole > place)


def _gold_due(annotator: Annotator, study: Study, pairs: int) -> int:
    return min(study.gold, due(annotator.id, Purpose.GOLD, study.gold_share, pairs))


def _repeats_due(annotator: Annotator, study: Study, pairs: int) -> int:
    return due(annotator.id, Purpose.REPEAT, study.repeats, pairs)


def deal(session: Session, annotator: Annotator, study: Study, work: Workload) -> Assignment | None:
    """A pair that the rater does not hold yet; None when there is none left for them."""
    pairs = work.dealt[Purpose.PAIR]
    if work.dealt[Purpose.TUTORIAL] < study.tutorial:
        return _deal_known(session, annotator, study, ItemKind.TUTORIAL)
    if work.dealt[Purpose.GOLD] < _gold_due(annotator, study, pairs):
        return _deal_known(session, annotator, study, ItemKind.GOLD)
    repeat_is_due = work.dealt[Purpose.REPEAT] < _repeats_due(annotator, study, pairs)
    if repeat_is_due and (repeated := _deal_repeat(session, annotator, _BETWEEN)):
        return repeated
    item_id = _hold_a_free_pair(session, annotator, study, work.free)
    if item_id is not None:
        return _assign(session, annotator, session.get_one(StudyItem, item_id), Purpose.PAIR)
    return _deal_repeat(session, annotator, 0) if repeat_is_due else None


def _hold_a_free_pair(session: Session, annotator: Annotator, study: Study, size: int) -> str | None:
    """One of ``size`` free pairs, each equally likely; drawn again where its last place went meanwhile."""
    free = free_pairs(annotator, study)
    while size:
        item_id = take(session, study, free.offset(draw(range(size))).limit(1).scalar_subquery())
        if item_id is not None:
            return item_id
        size = _count(session, free)
    return None


def _deal_known(session: Session, annotator: Annotator, study: Study, kind: ItemKind) -> Assignment:
    """One of the gold pairs that the rater has not seen; the caller has made sure that there is one."""
    purpose = Purpose(kind.value)
    seen = select(Assignment.item_id).where(
        Assignment.annotator_id == annotator.id, Assignment.purpose == purpose
    )
    unseen = session.scalars(
        select(StudyItem.id).where(
            StudyItem.study_id == study.id, StudyItem.kind == kind, StudyItem.id.not_in(seen)
        )
    ).all()
    return _assign(session, annotator, session.get_one(StudyItem, draw(unseen)), purpose)


def _deal_repeat(session: Session, annotator: Annotator, between: int) -> Assignment | None:
    """A pair that the rater has voted on and not seen twice, the sides swapped; None where there is none."""
    twice = select(Assignment.item_id).where(
        Assignment.annotator_id == annotator.id, Assignment.purpose == Purpose.REPEAT
    )
    firsts = session.scalars(
        select(Assignment)
        .where(
            Assignment.annotator_id == annotator.id,
            Assignment.purpose == Purpose.PAIR,
            Assignment.standing == Standing.VOTED,
        )
        .order_by(Assignment.created_at.desc(), Assignment.id)
        .offset(between)
    ).all()
    seen_twice = set(session.scalars(twice))
    candidates = [first for first in firsts if first.item_id not in seen_twice]
    if not candidates:
        return None
    first = draw(candidates)
    return _add(session, annotator, first.item, Purpose.REPEAT, not first.a_is_left)


def _assign(session: Session, annotator: Annotator, item: StudyItem, purpose: Purpose) -> Assignment:
    return _add(session, annotator, item, purpose, _side(session, annotator, item, purpose))


def _side(session: Session, annotator: Annotator, item: StudyItem, purpose: Purpose) -> bool:
    """Whether system a of a pair stands left: of its two systems, the one that stood left less often does.

    Counted over this rater's pairs of the subset, so that each system stands on both sides equally often.
    """
    stood = session.execute(
        select(StudyItem.system_a, StudyItem.system_b, Assignment.a_is_left, func.count())
        .join(StudyItem, StudyItem.id == Assignment.item_id)
        .where(
            Assignment.annotator_id == annotator.id,
            Assignment.purpose == purpose,
            StudyItem.subset == item.subset,
        )
        .group_by(StudyItem.system_a, StudyItem.system_b, Assignment.a_is_left)
    )
    left: Counter[int] = Counter()
    right: Counter[int] = Counter()
    for system_a, system_b, a_is_left, count in stood:
        left[system_a if a_is_left else system_b] += count
        right[system_b if a_is_left else system_a] += count
    a, b = item.system_a, item.system_b
    return a_stands_left(left[a] + right[b], right[a] + left[b])


def _add(
    session: Session, annotator: Annotator, item: StudyItem, purpose: Purpose, a_is_left: bool
) -> Assignment:
    assignment = Assignment(
        id=new_id("asg"),
        annotator_id=annotator.id,
        item=item,
        purpose=purpose,
        standing=Standing.OPEN,
        a_is_left=a_is_left,
    )
    session.add(assignment)
    return assignment


def _count(session: Session, found: Select[str]) -> int:
    counted = select(func.count()).select_from(found.subquery())
    return session.scalar(counted) or 0
