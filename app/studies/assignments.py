"""The pairs that a rater holds. Every function runs in the caller's transaction.

A rater's row is locked, so that two tabs see one order of events: both get the same open pairs. A pair
is open until the rater votes on it or skips it (``answers.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.db.models import Annotator, Assignment, Purpose, Standing, Study
from app.studies.dealing import Workload, deal, workload
from app.studies.places import left_by_others, let_go_of_the_left, still_wanted

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
    tutorial: Literal[True] | None  # told of the tutorial's pairs; None for all others


class StudyClosed(Exception):
    """The study was unblinded; no vote counts any more."""


class NoSuchAssignment(Exception):
    """The rater was dealt no such assignment."""


class TooManyOpen(Exception):
    """The rater holds as many open pairs as anybody may."""


def next_pair(session: Session, annotator_id: str, lease: timedelta, after: str | None = None) -> Pair | None:
    """The rater's first open pair, else a new one; None when all pairs are rated.

    ``after``: an assignment of theirs; the pair is then the one that comes after it, whether or not it is
    answered yet, so that a page can hold the pairs to come. Asking renews the leases of all their open pairs,
    those too that had run out, unless a pair's place went to another.

    Raises:
        NoSuchAssignment: ``after`` is not the rater's.
        TooManyOpen: ``after`` is the last pair, and ``OPEN_AT_MOST`` wait for an answer.
        StudyClosed: the study was unblinded.
    """
    study, somebody_left = _lock_study(session, annotator_id)
    annotator = session.scalars(select(Annotator).where(Annotator.id == annotator_id).with_for_update()).one()
    held = None if after is None else session.get(Assignment, after)
    if after is not None and (held is None or held.annotator_id != annotator.id):
        raise NoSuchAssignment
    if somebody_left:
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
    following = [one for one in wanted if held is None or _place(one) > _place(held)]
    if held is not None and not following and len(wanted) >= OPEN_AT_MOST:
        raise TooManyOpen
    work = workload(session, annotator, study)
    assignment = following[0] if following else deal(session, annotator, study, work)
    if assignment is None:
        return None
    assignment.lease_until = func.now() + lease
    session.flush()
    if others := [one.id for one in wanted if one is not assignment]:
        theirs = update(Assignment).where(Assignment.id.in_(others)).values(lease_until=func.now() + lease)
        session.execute(theirs.execution_options(synchronize_session=False))
    return pair_of(session, assignment, study, work)


def _place(assignment: Assignment) -> tuple[datetime, str]:
    """In the order in which pairs were dealt."""
    return assignment.created_at, assignment.id


def lock_rater(
    session: Session, annotator_id: str, assignment_id: str
) -> tuple[Study, Annotator, Assignment]:
    """Lock the rater against their other tabs with a pair that they were dealt, and the study (shared).

    The study comes first, as for researchers, who lock it before they remove a rater or close it.

    Raises:
        StudyClosed: it was unblinded.
        NoSuchAssignment: it was dealt to nobody, or to another.
    """
    study, _ = _lock_study(session, annotator_id)
    both = select(Annotator, Assignment).join(Assignment, Assignment.annotator_id == Annotator.id)
    mine = both.where(Annotator.id == annotator_id, Assignment.id == assignment_id)
    found = session.execute(mine.with_for_update()).one_or_none()
    if found is None:
        raise NoSuchAssignment
    return study, *found


def _lock_study(session: Session, annotator_id: str) -> tuple[Study, bool]:
    """A rater's study, shared, and whether somebody else left a pair of it."""
    left = left_by_others(Study.id, annotator_id).correlate(Study).exists()
    theirs = select(Study, left).join(Annotator, Annotator.study_id == Study.id)
    shared = theirs.where(Annotator.id == annotator_id).with_for_update(read=True, of=Study)
    study, somebody_left = session.execute(shared).one()
    if study.unblinded_at is not None:
        raise StudyClosed
    return study, somebody_left


def pair_of(session: Session, assignment: Assignment, study: Study, work: Workload) -> Pair:
    """What the rater sees of an assignment, and how far they are."""
    item = assignment.item
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
