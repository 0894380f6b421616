"""Dealing pairs to raters. Every function runs in the caller's transaction.

A rater's row is locked first, so that two tabs see one order of events: both get the same open pairs. A pair
is open until the rater votes on it or skips it (``answers.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from app.db.models import Annotator, Assignment, Skip, Study, StudyItem, Vote
from app.ids import new_id
from app.studies.blinding import a_stands_left, draw

OPEN_AT_MOST = 5
"""Open pairs of a rater who reads ahead: enough for a few without the network."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What a rater receives, and nothing else."""

    id: str
    prompt: list[Any]
    left: str
    right: str
    criteria: str
    done: int
    total: int


class StudyClosed(Exception):
    """The study was unblinded; no vote counts any more."""


class NoSuchAssignment(Exception):
    """The rater was dealt no such assignment."""


class TooManyOpen(Exception):
    """The rater holds as many open pairs as anybody may."""


def items_of(annotator: Annotator, study: Study) -> list[ColumnElement[bool]]:
    """Which items of a study are a rater's, as conditions on ``StudyItem``.

    Under the protocol "paper" an item is judged once: what an earlier rater of the subset voted on, before
    their key was revoked, is done.
    """
    theirs = [StudyItem.study_id == study.id, StudyItem.subset.in_(annotator.subsets)]
    if study.protocol == "paper":
        voted_by_others = (
            select(Vote.id)
            .join(Assignment, Assignment.id == Vote.assignment_id)
            .where(
                Assignment.item_id == StudyItem.id,
                Assignment.annotator_id != annotator.id,
                Vote.undone_at.is_(None),
            )
            .exists()
        )
        theirs.append(~voted_by_others)
    return theirs


def next_pair(session: Session, annotator_id: str, lease: timedelta, after: str | None = None) -> Pair | None:
    """The rater's first open pair, else a new one; None when all pairs are rated.

    ``after``: an assignment of theirs; the pair is then the one that comes after it, whether or not it is
    answered yet, so that a page can hold the pairs to come. A pair stays with its rater: asking renews the
    leases of all their open pairs, and no pair is dealt twice.

    Raises:
        NoSuchAssignment: ``after`` is not the rater's.
        TooManyOpen: ``after`` is the last pair, and ``OPEN_AT_MOST`` wait for an answer.
        StudyClosed: the study was unblinded.
    """
    annotator, study = lock_rater(session, annotator_id)
    opened = _open(session, annotator.id)
    following = opened
    if after is not None:
        held = own_assignment(session, annotator_id, after)
        following = [one for one in opened if (one.created_at, one.id) > (held.created_at, held.id)]
        if not following and len(opened) >= OPEN_AT_MOST:
            raise TooManyOpen
    assignment = following[0] if following else _deal(session, annotator, study)
    if assignment is None:
        return None
    for one in {*opened, assignment}:
        one.lease_until = func.now() + lease
    session.flush()
    return pair_of(session, assignment, annotator, study)


def lock_rater(session: Session, annotator_id: str) -> tuple[Annotator, Study]:
    """Lock the rater against their other tabs, and the study (shared) against being closed meanwhile.

    Raises:
        StudyClosed: it was unblinded.
    """
    annotator = session.scalars(select(Annotator).where(Annotator.id == annotator_id).with_for_update()).one()
    study = session.scalars(
        select(Study).where(Study.id == annotator.study_id).with_for_update(read=True)
    ).one()
    if study.unblinded_at is not None:
        raise StudyClosed
    return annotator, study


def answered() -> ColumnElement[bool]:
    """Whether an assignment has a standing vote or a standing skip."""
    return or_(
        select(Vote.id).where(Vote.assignment_id == Assignment.id, Vote.undone_at.is_(None)).exists(),
        select(Skip.id).where(Skip.assignment_id == Assignment.id, Skip.undone_at.is_(None)).exists(),
    )


def _open(session: Session, annotator_id: str) -> Sequence[Assignment]:
    """The rater's open pairs in the order in which they were dealt."""
    return session.scalars(
        select(Assignment)
        .where(Assignment.annotator_id == annotator_id, ~answered())
        .order_by(Assignment.created_at, Assignment.id)
    ).all()


def own_assignment(session: Session, annotator_id: str, assignment_id: str) -> Assignment:
    """A pair that the rater was dealt.

    Raises:
        NoSuchAssignment: it was dealt to nobody, or to another.
    """
    assignment = session.get(Assignment, assignment_id)
    if assignment is None or assignment.annotator_id != annotator_id:
        raise NoSuchAssignment
    return assignment


def _deal(session: Session, annotator: Annotator, study: Study) -> Assignment | None:
    seen = select(Assignment.item_id).where(Assignment.annotator_id == annotator.id)
    unseen = session.execute(
        select(StudyItem.id, StudyItem.subset).where(*items_of(annotator, study), StudyItem.id.not_in(seen))
    ).all()
    if not unseen:
        return None
    item_id, subset = draw(unseen)
    sides = dict(
        session.execute(
            select(Assignment.a_is_left, func.count())
            .join(StudyItem, StudyItem.id == Assignment.item_id)
            .where(Assignment.annotator_id == annotator.id, StudyItem.subset == subset)
            .group_by(Assignment.a_is_left)
        ).all()
    )
    assignment = Assignment(
        id=new_id("asg"),
        annotator_id=annotator.id,
        item_id=item_id,
        a_is_left=a_stands_left(sides.get(True, 0), sides.get(False, 0)),
    )
    session.add(assignment)
    return assignment


def pair_of(session: Session, assignment: Assignment, annotator: Annotator, study: Study) -> Pair:
    """What the rater sees of an assignment, and how far they are."""
    item = session.get_one(StudyItem, assignment.item_id)
    responses = (item.response_a, item.response_b)
    done = session.scalar(
        select(func.count())
        .select_from(Assignment)
        .where(Assignment.annotator_id == annotator.id, answered())
    )
    total = session.scalar(select(func.count()).select_from(StudyItem).where(*items_of(annotator, study)))
    return Pair(
        id=assignment.id,
        prompt=item.prompt,
        left=responses[not assignment.a_is_left],
        right=responses[assignment.a_is_left],
        criteria=study.criteria,
        done=done or 0,
        total=total or 0,
    )
