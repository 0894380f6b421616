"""Engine and sessions; what must happen after a commit is noted in the session and done then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import Session, sessionmaker

from app.queue import ring
from app.settings import get_settings

_TO_RING = "stage_runs_to_ring"


_CONNECTION = {
    "options": "-c timezone=utc",
    "connect_timeout": 5,
    # a server that vanished without a word is noticed within half a minute
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


@cache
def get_engine() -> Engine:
    """The process's connection pool."""
    return create_engine(
        get_settings().database_url,
        pool_size=20,
        max_overflow=20,
        pool_pre_ping=True,
        connect_args=_CONNECTION,
    )


@cache
def _factory() -> sessionmaker[Session]:
    return sessionmaker(get_engine(), expire_on_commit=False)


@contextmanager
def transaction() -> Iterator[Session]:
    """One transaction: committed when the block ends, rolled back when it raises."""
    with _factory()() as session:
        yield session
        session.commit()


def ring_after_commit(session: Session, stage_run_id: str, queue: str) -> None:
    """Send a stage run's doorbell once its row is committed; a lost doorbell is the reconciler's work."""
    session.info.setdefault(_TO_RING, []).append((stage_run_id, queue))


@event.listens_for(Session, "after_commit")
def _ring(session: Session) -> None:
    for stage_run_id, queue in session.info.pop(_TO_RING, []):
        ring(stage_run_id, queue)


@event.listens_for(Session, "after_rollback")
def _forget(session: Session) -> None:
    session.info.pop(_TO_RING, None)
