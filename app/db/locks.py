"""Who may change jobs and stage runs at the same time as whom.

One advisory lock of the database guards the graph of jobs and stage runs:

* What moves several rows (submit, finish, cancel, pause, resume, reconcile) holds it **exclusively**
  (:func:`lock_graph`).
* What touches one stage run and the counters of its jobs (claim, renew, ingest) **shares** it
  (:func:`share_graph`), and then locks the stage run first and its jobs in the order of their ids.

A transaction that holds it exclusively meets no other one, so it may touch rows in any order; those that
share it cannot wait for each other in a ring. Take it before any row of ``jobs``, ``stage_runs`` or
``datasets`` is locked.
A holder that stalls (a stopped process) is thrown out by the database after some seconds.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import DateTime, func, select, text
from sqlalchemy.orm import Session

_GRAPH = 0xDEF7_0001
_RECONCILER = 0xDEF7_0002
_STALL_LIMIT = text("SET LOCAL idle_in_transaction_session_timeout = '10s'")


def lock_graph(session: Session) -> None:
    """Hold the graph alone until the transaction ends."""
    session.execute(_STALL_LIMIT)
    session.execute(select(func.pg_advisory_xact_lock(_GRAPH)))


def share_graph(session: Session) -> None:
    """Hold the graph together with others that touch one stage run each, until the transaction ends."""
    session.execute(_STALL_LIMIT)
    session.execute(select(func.pg_advisory_xact_lock_shared(_GRAPH)))


def try_lock_reconciler(session: Session) -> bool:
    """Whether this transaction is the one that reconciles now; the others need not wait for it."""
    session.execute(_STALL_LIMIT)
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_RECONCILER))))


def database_time(session: Session) -> datetime:
    """The database's clock, the only one that leases and backoffs go by."""
    return session.scalars(select(func.clock_timestamp(type_=DateTime(timezone=True)))).one()
