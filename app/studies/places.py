"""Places on pairs: how many raters may hold a pair, who holds one, and when it is free again.

A pair has ``raters_per_pair`` places. An assignment of it holds one from dealing on, and while a vote stands.
It is let go when its lease has run out or its rater has left, so that another rater can have it; if a vote
comes all the same, the place is taken again, and the pair can then have a vote more than it needs (ADR 78).
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, ScalarSelect, Select, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.db.models import Annotator, ApiKey, Assignment, Purpose, Standing, Study, StudyPlace

_HOLDING = (Standing.OPEN, Standing.VOTED)


def to_rate(study: Study) -> list[ColumnElement[bool]]:
    """Which places of a study are free, as conditions on ``StudyPlace``."""
    free: list[ColumnElement[bool]] = [StudyPlace.study_id == study.id]
    if study.raters_per_pair is not None:
        free.append(StudyPlace.held < study.raters_per_pair)
    return free


def take(session: Session, study: Study, item_id: str | ScalarSelect[str]) -> str | None:
    """Hold a place on a pair and return its id; None where the last one has just gone to another rater."""
    return session.scalar(
        update(StudyPlace)
        .where(StudyPlace.item_id == item_id, *to_rate(study))
        .values(held=StudyPlace.held + 1)
        .returning(StudyPlace.item_id)
    )


def move(session: Session, assignment: Assignment, standing: Standing) -> None:
    """Let an assignment stand otherwise; a place that this takes or gives up is counted, needed or not."""
    change = (standing in _HOLDING) - (assignment.standing in _HOLDING)
    assignment.standing = standing
    if change and assignment.purpose is Purpose.PAIR:
        session.execute(
            update(StudyPlace)
            .where(StudyPlace.item_id == assignment.item_id)
            .values(held=StudyPlace.held + change)
        )


def still_wanted(session: Session, study: Study, opened: Sequence[Assignment]) -> list[Assignment]:
    """Those of a rater's pairs without an answer that wait for one: a place that was let go is taken again.

    Where it went to another rater meanwhile the pair is not asked for any more; a vote on it is kept.
    """
    wanted = []
    for assignment in opened:
        if assignment.standing is Standing.RELEASED and take(session, study, assignment.item_id):
            assignment.standing = Standing.OPEN
        if assignment.standing is Standing.OPEN:
            wanted.append(assignment)
    return wanted


def left_by_others(study_id: str | InstrumentedAttribute[str], but: str) -> Select[Assignment]:
    """Open pairs of a study whose lease ran out or whose rater lost access, but those of one rater."""
    return (
        select(Assignment)
        .join(Annotator, Annotator.id == Assignment.annotator_id)
        .join(ApiKey, ApiKey.id == Annotator.key_id)
        .where(
            Annotator.study_id == study_id,
            Annotator.id != but,
            Assignment.purpose == Purpose.PAIR,  # nobody waits for another's repeat, gold or tutorial
            Assignment.standing == Standing.OPEN,
            or_(Assignment.lease_until < func.now(), ApiKey.revoked_at.is_not(None)),
        )
    )


def let_go_of_the_left(session: Session, study: Study, but: str) -> None:
    """Free the places of pairs that were left by others than one rater.

    One request does it at a time: it takes several places before its own, and two that did so could wait for
    each other. Whoever deals or votes meanwhile takes one place, as the last thing that they wait for.
    """
    if not session.scalar(select(func.pg_try_advisory_xact_lock(func.hashtext(study.id)))):
        return
    left = left_by_others(study.id, but).order_by(Assignment.item_id)
    for assignment in session.scalars(left.with_for_update(of=Assignment, skip_locked=True)).all():
        move(session, assignment, Standing.RELEASED)
    session.flush()


def exclude(session: Session, annotator: Annotator) -> None:
    """Count no vote of a rater any more, and free every place of theirs, voted or not.

    The study's row must be locked by the caller, so that nobody deals or votes meanwhile.
    """
    annotator.excluded_at = func.now()
    theirs = session.scalars(
        select(Assignment).where(Assignment.annotator_id == annotator.id, Assignment.standing.in_(_HOLDING))
    )
    for assignment in theirs.all():
        move(session, assignment, Standing.RELEASED)
    session.flush()
