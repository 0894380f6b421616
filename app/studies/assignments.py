"""Dealing pairs to raters and taking their votes. Every function runs in the caller's transaction.

A rater's row is locked first, so that two tabs see one order of events: both get the same open pair, and only
the first of two different choices counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.db.models import Annotator, Assignment, Choice, Purpose, Standing, Study, StudyItem, Vote
from app.studies.dealing import Workload, deal, workload
from app.studies.places import let_go_of_the_left, move, still_wanted


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
    tutorial: Literal[True] | None  # told of the tutorial's pairs; None for all others


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a rater of the tutorial is told after a vote."""

    agreed: bool
    better: Choice  # the side whose answer is known to be better


class StudyClosed(Exception):
    """The study was unblinded; no vote counts any more."""


class NoSuchAssignment(Exception):
    """The rater was dealt no such assignment."""


class VoteStands(Exception):
    """The pair has another vote already."""


class NotVoted(Exception):
    """There is no vote to undo."""


def next_pair(session: Session, annotator_id: str, lease: timedelta) -> Pair | None:
    """The rater's open pair, else a new one; None when all pairs are rated.

    A lease that ran out is renewed when its rater comes back, unless the pair's place went to another.

    Raises:
        StudyClosed: the study was unblinded.
    """
    annotator, study = _lock(session, annotator_id)
    let_go_of_the_left(session, study, but=annotator.id)
    opened = session.scalars(
        select(Assignment)
        .where(
            Assignment.annotator_id == annotator.id,
            Assignment.standing.in_((Standing.OPEN, Standing.RELEASED)),
        )
        .order_by(Assignment.created_at, Assignment.id)
    ).all()
    wanted = still_wanted(session, study, opened)
    work = workload(session, annotator, study)
    assignment = wanted[0] if wanted else deal(session, annotator, study, work)
    if assignment is None:
        return None
    assignment.lease_until = func.now() + lease
    session.flush()
    return _pair(session, assignment, study, work)


def vote(
    session: Session, annotator_id: str, assignment_id: str, choice: Choice, comment: str | None
) -> Feedback | None:
    """Keep a rater's choice; the same vote again changes nothing. After the lease it is kept and marked.

    Returns: what the tutorial says to it; None for every other pair.

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
        return _feedback(assignment, choice)
    late = session.scalar(select(func.now() > assignment.lease_until))
    session.add(Vote(assignment_id=assignment.id, choice=choice, comment=comment, late=bool(late)))
    move(session, assignment, Standing.VOTED)
    return _feedback(assignment, choice)


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
    move(session, assignment, Standing.OPEN)
    assignment.lease_until = func.now() + lease
    session.flush()
    return _pair(session, assignment, study, workload(session, annotator, study))


def _lock(session: Session, annotator_id: str) -> tuple[Annotator, Study]:
    """Lock the rater against their other tabs, and the study (shared) against being closed meanwhile."""
    annotator = session.scalars(select(Annotator).where(Annotator.id == annotator_id).with_for_update()).one()
    study = session.scalars(
        select(Study).where(Study.id == annotator.study_id).with_for_update(read=True)
    ).one()
    if study.unblinded_at is not None:
        raise StudyClosed
    return annotator, study


def _standing_vote(session: Session, assignment_id: str) -> Vote | None:
    return session.scalars(
        select(Vote).where(Vote.assignment_id == assignment_id, Vote.undone_at.is_(None))
    ).one_or_none()


def _own(session: Session, annotator_id: str, assignment_id: str) -> Assignment:
    assignment = session.get(Assignment, assignment_id, with_for_update=True)
    if assignment is None or assignment.annotator_id != annotator_id:
        raise NoSuchAssignment
    return assignment


def _feedback(assignment: Assignment, choice: Choice) -> Feedback | None:
    if assignment.purpose is not Purpose.TUTORIAL:
        return None
    better = Choice.LEFT if assignment.a_is_left else Choice.RIGHT
    return Feedback(agreed=choice is better, better=better)


def _pair(session: Session, assignment: Assignment, study: Study, work: Workload) -> Pair:
    item = session.get_one(StudyItem, assignment.item_id)
    responses = (item.response_a, item.response_b)
    return Pair(
        id=assignment.id,
        prompt=item.prompt,
        left=responses[not assignment.a_is_left],
        right=responses[assignment.a_is_left],
        criteria=study.criteria,
        done=work.done,
        total=work.total,
        tutorial=assignment.purpose is Purpose.TUTORIAL or None,
    )
