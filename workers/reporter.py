"""Keeps a claim alive and copies the engine's events to the database, in a thread beside the supervision.

The database may be away for a while: the engine goes on, its events wait in their file, and both are caught
up with afterwards. Only a lease that is really lost (another attempt has begun) ends the work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError

from app.db.claims import Claim, renew
from app.db.graph import Wanted
from app.db.ingest import ingest
from app.db.session import transaction
from app.settings import Settings
from deft_engine.events import read_events
from workers.database import is_unreachable, when_reachable
from workers.eta import Eta
from workers.run_folder import RunFolder

_POLL_SECONDS = 0.5
_BATCH = 500
_ERROR_FIELDS = ("code", "message", "hint", "retryable", "summary")

log = structlog.get_logger()


class Reporter(threading.Thread):
    """``wanted``: what the database said last; ``engine_error``: what the engine did; ``broken`` ends it."""

    def __init__(self, claim: Claim, folder: RunFolder, settings: Settings) -> None:
        super().__init__(name=f"reporter-{claim.run_id}", daemon=True)
        self.wanted = Wanted.RUN
        self.engine_error: dict[str, Any] | None = None
        self.broken: Exception | None = None
        self._claim = claim
        self._folder = folder
        self._settings = settings
        self._ended = threading.Event()
        self._offsets = dict.fromkeys(range(1, claim.attempt + 1), 0)
        self._eta = Eta()

    def run(self) -> None:
        """Until ``finish``: renew every ``heartbeat_seconds``, read the files more often."""
        renewed = time.monotonic()
        while not self._ended.is_set():
            try:
                self._copy_events()
                if time.monotonic() - renewed >= self._settings.heartbeat_seconds:
                    self._renew()
                    renewed = time.monotonic()
            except DBAPIError as error:
                if not is_unreachable(error):
                    self.broken = error
                    return
                log.warning("database_unreachable", run=self._claim.run_id, error=str(error.orig))
            except Exception as error:  # LeaseLost; anything else is a defect that the task reports
                self.broken = error
                return
            self._ended.wait(_POLL_SECONDS)

    def finish(self, give_up: threading.Event) -> None:
        """Stop renewing, and copy what is left, however long the database is away.

        Raises:
            LeaseLost: the claim is over.
            DBAPIError: ``give_up`` was set while the database was away.
        """
        self.end()
        if self.broken is not None:
            raise self.broken
        when_reachable(self._copy_events, give_up)

    def end(self) -> None:
        """Stop renewing."""
        self._ended.set()
        self.join()

    def _renew(self) -> None:
        with transaction() as session:
            self.wanted = renew(session, self._claim, lease_seconds=self._settings.lease_seconds)

    def _copy_events(self) -> None:
        """Copy what is new in the files of this attempt, and of earlier ones whose worker died."""
        for attempt in self._offsets:
            for offset, events in self._batches(attempt):
                with transaction() as session:
                    ingest(session, self._claim, attempt, events)
                self._offsets[attempt] = offset

    def _batches(self, attempt: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Batches of an attempt's new events, each with the offset behind it in the file."""
        path = self._folder.events(attempt)
        if not path.exists():
            return
        batch: list[dict[str, Any]] = []
        offset = self._offsets[attempt]
        for behind, event in read_events(path, offset):
            offset = behind
            batch.append(self._noted(attempt, event))
            if len(batch) == _BATCH:
                yield offset, batch
                batch = []
        if batch:
            yield offset, batch

    def _noted(self, attempt: int, event: dict[str, Any]) -> dict[str, Any]:
        """The event, with ``eta_s`` if it is progress; an error of this attempt is kept for the task.

        An earlier attempt tells nothing of the time left: hours may lie between its last step and this one.
        """
        of_this_attempt = attempt == self._claim.attempt
        if event["type"] == "progress":
            return {**event, "eta_s": self._eta.seconds_left(event) if of_this_attempt else None}
        if event["type"] == "error" and of_this_attempt:
            self.engine_error = {key: event[key] for key in _ERROR_FIELDS if key in event}
        return event
