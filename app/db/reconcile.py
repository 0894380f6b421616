"""Puts right what a lost message, a dead worker or a flushed broker has left, by what the rows say."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.db.claims import end_attempt, retry_or_fail
from app.db.graph import make_ready, startable
from app.db.locks import lock_graph, try_lock_reconciler
from app.db.models import AttemptStatus, StageRun, StageStatus
from app.db.session import ring_after_commit
from app.settings import Settings

_LOST = {
    "code": "worker_lost",
    "message": "the worker stopped answering",
    "hint": "the stage goes on from its last checkpoint while attempts are left",
    "retryable": True,
}


def reconcile(session: Session, settings: Settings, messages: Mapping[str, int], *, take_back: bool) -> None:
    """One pass; of several reconcilers one works and the others return at once.

    Args:
        take_back: whether a lease that ran out ends its attempt. False while the caller has not been in
            touch with the database for as long as a lease lasts: other workers may just have been cut off
            from it, too, and are to renew theirs first.
        messages: queue -> messages that wait in the broker. A stage run that has been ready for long is sent
            again only where fewer messages wait than stage runs, so that no busy queue fills up with copies.
    """
    if not try_lock_reconciler(session):
        return
    lock_graph(session)
    if take_back:
        _take_back_expired(session)
    for run in startable(session):
        make_ready(session, run)
    session.flush()
    for queue, waiting in messages.items():
        _ring_again(session, queue, waiting, settings.redispatch_seconds)


def _take_back_expired(session: Session) -> None:
    expired = session.scalars(
        select(StageRun)
        .where(StageRun.status == StageStatus.RUNNING, StageRun.lease_until < func.clock_timestamp())
        .order_by(StageRun.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    for run in expired:
        end_attempt(session, run, AttemptStatus.LOST, None, _LOST)
        retry_or_fail(session, run, _LOST)


def _ring_again(session: Session, queue: str, waiting: int, redispatch_seconds: float) -> None:
    now = func.clock_timestamp()
    ready = session.scalars(
        select(StageRun).where(
            StageRun.status == StageStatus.READY,
            StageRun.queue == queue,
            or_(StageRun.not_before.is_(None), StageRun.not_before <= now),
        )
    ).all()
    if waiting >= len(ready):
        return
    moment = session.scalars(select(now)).one()
    for run in ready:
        if run.sent_at is None or moment - run.sent_at > timedelta(seconds=redispatch_seconds):
            run.sent_at = moment
            ring_after_commit(session, run.id, run.queue)
