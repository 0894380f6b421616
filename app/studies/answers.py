"""What raters answer: a vote, a skip, and the taking back of either, in the caller's transaction.

A rater's row is locked, as in ``assignments.py``: of two different answers to a pair the first counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select, union_all
from sqlalchemy.orm import Session

from app.db.models import Assignment, Choice, Purpose, Skip, Standing, Vote
from app.studies.assignments import Pair, lock_rater, pair_of
from app.studies.dealing import workload
from app.studies.places import move


class VoteStands(Exception):
    """The pair has another vote already."""


class SkipStands(Exception):
    """The pair was skipped already."""


class NotVoted(Exception):
    """There is no vote or skip to undo."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a rater of the tutorial is told after a vote."""

    agreed: bool
    better: Choice  # the side whose answer is known to be better


@dataclass(frozen=True, slots=True)
class Ballot:
    """A rater's choice and what they say with it."""

    choice: Choice
    comment: str | None = None
    harmful: bool = False
    seconds: float | None = None
    """How long the pair was on the screen, as the rater's browser tells; no part of what is compared."""


def vote(session: Session, annotator_id: str, assignment_id: str, ballot: Ballot) -> Feedback | None:
    """Keep a rater's choice; the same vote again changes nothing. After the lease it is kept and marked.

    Returns: what the tutorial says to it; None for every other pair.

    Raises:
        NoSuchAssignment: the rater was not dealt it.
        VoteStands: another choice, comment or flag stands.
        SkipStands: the pair was skipped.
        StudyClosed: the study was unblinded.
    """
    *_, assignment = lock_rater(session, annotator_id, assignment_id)
    standing = _standing(session, assignment)
    if isinstance(standing, Skip):
        raise SkipStands
    if standing is not None:
        kept = Ballot(standing.choice, standing.comment, standing.harmful, ballot.seconds)
        if kept != ballot:
            raise VoteStands
        return _feedback(assignment, ballot.choice)
    session.add(
        Vote(
            assignment_id=assignment.id,
            choice=ballot.choice,
            comment=ballot.comment,
            harmful=ballot.harmful,
            seconds=ballot.seconds,
            late=func.now() > assignment.lease_until,
        )
    )
    move(session, assignment, Standing.VOTED)
    return _feedback(assignment, ballot.choice)


def skip(session: Session, annotator_id: str, assignment_id: str, reason: str, harmful: bool) -> None:
    """Keep that a rater will not judge a pair; the same skip again changes nothing. It is not dealt again.

    Raises:
        NoSuchAssignment: the rater was not dealt it.
        VoteStands: the pair has a vote.
        SkipStands: it was skipped for another reason, or flagged otherwise.
        StudyClosed: the study was unblinded.
    """
    *_, assignment = lock_rater(session, annotator_id, assignment_id)
    standing = _standing(session, assignment)
    if isinstance(standing, Vote):
        raise VoteStands
    if standing is not None:
        if (standing.reason, standing.harmful) != (reason, harmful):
            raise SkipStands
        return
    session.add(Skip(assignment_id=assignment.id, reason=reason, harmful=harmful))
    move(session, assignment, Standing.SKIPPED)


def undo(session: Session, annotator_id: str, assignment_id: str, lease: timedelta) -> Pair:
    """Take a vote or a skip back; it stays in its table, marked, and the pair is open again.

    Raises:
        NoSuchAssignment: the rater was not dealt it.
        NotVoted: neither stands.
        StudyClosed: the study was unblinded.
    """
    study, annotator, assignment = lock_rater(session, annotator_id, assignment_id)
    standing = _standing(session, assignment)
    if standing is None:
        raise NotVoted
    standing.undone_at = func.now()
    move(session, assignment, Standing.OPEN)
    assignment.lease_until = func.now() + lease
    session.flush()
    return pair_of(session, assignment, study, workload(session, annotator, study))


def last_answered(session: Session, annotator_id: str) -> str | None:
    """The assignment that the rater voted on or skipped last, on whichever device; None before the first."""
    answers = union_all(
        *(
            select(kind.assignment_id, kind.created_at)
            .join(Assignment, Assignment.id == kind.assignment_id)
            .where(Assignment.annotator_id == annotator_id, kind.undone_at.is_(None))
            for kind in (Vote, Skip)
        )
    ).subquery()
    return session.scalar(
        select(answers.c.assignment_id)
        .order_by(answers.c.created_at.desc(), answers.c.assignment_id)
        .limit(1)
    )


def _standing(session: Session, assignment: Assignment) -> Vote | Skip | None:
    if assignment.standing is Standing.OPEN:
        return None
    a_vote = select(Vote).where(Vote.assignment_id == assignment.id, Vote.undone_at.is_(None))
    a_skip = select(Skip).where(Skip.assignment_id == assignment.id, Skip.undone_at.is_(None))
    return session.scalars(a_vote).one_or_none() or session.scalars(a_skip).one_or_none()


def _feedback(assignment: Assignment, choice: Choice) -> Feedback | None:
    if assignment.purpose is not Purpose.TUTORIAL:
        return None
    better = Choice.LEFT if assignment.a_is_left else Choice.RIGHT
    return Feedback(agreed=choice is better, better=better)
