"""Waiting for a database that is away for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

_RETRY_SECONDS = 1.0

T = TypeVar("T")

log = structlog.get_logger()


def is_unreachable(error: DBAPIError) -> bool:
    """Whether the same statement may succeed later: the server was away, or broke the connection."""
    return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated


def when_reachable(action: Callable[[], T], give_up: threading.Event) -> T:
    """Do ``action`` (whole transactions), again while the database is away, until ``give_up`` is set.

    Raises:
        DBAPIError: it was given up, or the statement itself is wrong.
    """
    while True:
        try:
            return action()
        except DBAPIError as error:
            if not is_unreachable(error) or give_up.is_set():
                raise
            log.warning("database_unreachable", error=str(error.orig))
            give_up.wait(_RETRY_SECONDS)
