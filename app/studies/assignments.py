"""Dealing pairs to raters and taking their votes. Every function runs in the caller's transaction.

A rater's row is locked first, so that two tabs see one order of events: both get the same open pair, and only
the first of two different choices counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from app.db.models import Annotator, Assignment, Choice, Study, StudyItem, Vote
from app.ids import new_id
from app.studies.blinding import a_stands_left, draw


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


class VoteStands(Exception):
    """The pair has another vote already."""


class NotVoted(Exception):
    """There is no vote to undo."""


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


def next_pair(session: Session, annotator_id: str, lease: timedelta) -> Pair | None:
    """The rater's open pair, else a new one; None when all pairs are rated.

    A pair stays with its rater: an expired lease is renewed when they come back, and no pair is dealt twice.

    Raises:
        StudyClosed: the study was unblinded.
    """
    annotator, study = _lock(session, annotator_id)
    opened = session.scalars(
        select(Assignment)
        .where(Assignment.annotator_id == annotator.id, ~_voted())
        .order_by(Assignment.created_at, Assignment.id)
        .limit(1)
    ).one_or_none()
    assignment = opened or _deal(session, annotator, study)
    if assignment is None:
        return None
    assignment.lease_until = func.now() + lease
    session.flush()
    return _pair(session, assignment, annotator, study)


def vote(
    session: Session, annotator_id: str, assignment_id: str, choice: Choice, comment: str | None
) -> None:
    """Keep a rater's choice; the same vote again changes nothing. After the lease it is kept and marked.

    Raises:
        NoSuchAssignment: the rater was not dealt it.
        VoteStands: another choice or comment stands.
        StudyClosed: the study was unblinded.
    """
    _lock(session, annotator_id)
    assignment = _own(session, annotator_id, assignment_id)
    standing = _standing_vote(session, assignment.id)
    if standing is not None:
        if (standing.choice, standing.comment) != (choice, comment):
            raise VoteStands
        return
    late = session.scalar(select(func.now() > assignment.lease_until))
    session.add(Vote(assignment_id=assignment.id, choice=choice, comment=comment, late=bool(late)))


def undo(session: Session, annotator_id: str, assignment_id: str, lease: timedelta) -> Pair:
    """Take a vote back; the vote stays in the table, marked, and the pair is open again.

    Raises:
        NoSuchAssignment: the rater was not dealt it.
        NotVoted: no vote stands.
        StudyClosed: the study was unblinded.
    """
    annotator, study = _lock(session, annotator_id)
    assignment = _own(session, annotator_id, assignment_id)
    standing = _standing_vote(session, assignment.id)
    if standing is None:
        raise NotVoted
    session.execute(update(Vote).where(Vote.id == standing.id).values(undone_at=func.now()))
    assignment.lease_until = func.now() + lease
    session.flush()
    return _pair(session, assignment, annotator, study)


def _lock(session: Session, annotator_id: str) -> tuple[Annotator, Study]:
    """Lock the rater against their other tabs, and the study (shared) against being closed meanwhile."""
    annotator = session.scalars(select(Annotator).where(Annotator.id == annotator_id).with_for_update()).one()
    study = session.scalars(
        select(Study).where(Study.id == annotator.study_id).with_for_update(read=True)
    ).one()
    if study.unblinded_at is not None:
        raise StudyClosed
    return annotator, study


def _voted() -> ColumnElement[bool]:
    return select(Vote.id).where(Vote.assignment_id == Assignment.id, Vote.undone_at.is_(None)).exists()


def _standing_vote(session: Session, assignment_id: str) -> Vote | None:
    return session.scalars(
        select(Vote).where(Vote.assignment_id == assignment_id, Vote.undone_at.is_(None))
    ).one_or_none()


def _own(session: Session, annotator_id: str, assignment_id: str) -> Assignment:
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


def _pair(session: Session, assignment: Assignment, annotator: Annotator, study: Study) -> Pair:
    item = session.get_one(StudyItem, assignment.item_id)
    responses = (item.response_a, item.response_b)
    done = session.scalar(
        select(func.count())
        .select_from(Vote)
        .join(Assignment, Assignment.id == Vote.assignment_id)
        .where(Assignment.annotator_id == annotator.id, Vote.undone_at.is_(None))
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
