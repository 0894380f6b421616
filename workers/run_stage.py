"""The one task: claim a stage run, supervise its engine, and write down what came of it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError

from app.db.claims import AttemptEnd, Claim, LeaseLost, Output, claim, fail, interrupt, note_refusal, succeed
from app.db.graph import Wanted
from app.db.session import transaction
from app.settings import Settings, get_settings
from app.store import get_store
from deft_engine.errors import DeftError, StageCrashed
from deft_engine.run import EXIT_FAILED, EXIT_INTERRUPTED, as_deft_error
from workers.database import is_unreachable, when_reachable
from workers.engine import SupervisedEngine, endpoint_environment
from workers.reporter import Reporter
from workers.run_folder import RunFolder

_BEAT_SECONDS = 0.5
_CANCEL_GRACE_SECONDS = 3.0  # nothing is kept of a cancelled stage

log = structlog.get_logger()

shutting_down = threading.Event()
"""Set when the worker is asked to leave: stages are handed back."""


def run_stage(stage_run_id: str) -> None:
    """Run a stage if it is ready; a message for any other is old, or one of several copies."""
    settings = get_settings()
    if shutting_down.is_set():
        return
    worker = f"{socket.gethostname()}:{os.getpid()}"
    claimed = when_reachable(partial(_claim, stage_run_id, worker, settings.lease_seconds), shutting_down)
    if claimed is None:
        log.info("not_ready", run=stage_run_id)
        return
    with structlog.contextvars.bound_contextvars(
        run=claimed.run_id, stage=claimed.stage, attempt=claimed.attempt
    ):
        log.info("claimed")
        try:
            _carry_out(claimed, settings)
        except DBAPIError as error:
            log.warning("left_without_database", error=str(error.orig))


def _claim(stage_run_id: str, worker: str, lease_seconds: float) -> Claim | None:
    with transaction() as session:
        return claim(session, stage_run_id, worker=worker, lease_seconds=lease_seconds)


def _carry_out(claimed: Claim, settings: Settings) -> None:
    try:
        _Run(claimed, settings).carry_out()
    except LeaseLost:
        log.warning("lease_lost")
        when_reachable(partial(_note_refusal, claimed), shutting_down)


def _note_refusal(claimed: Claim) -> None:
    with transaction() as session:
        note_refusal(session, claimed)


class _Run:
    """One attempt of a stage, from claim to its last word."""

    def __init__(self, claimed: Claim, settings: Settings) -> None:
        self._claim = claimed
        self._settings = settings
        self._store = get_store()
        self._folder = RunFolder(settings.runs_root / claimed.run_id)
        self._reporter = Reporter(claimed, self._folder, settings)
        self._grace: float | None = None  # that the engine was given when it was asked to stop

    def carry_out(self) -> None:
        """Run the engine, unless that of an earlier attempt had finished, and end the attempt.

        Raises:
            LeaseLost: the stage run belongs to another attempt by now; the engine has been stopped.
            DBAPIError: the database is away and the worker leaves; the lease will run out.
        """
        status: int | None = None
        self._reporter.start()
        try:
            if self._folder.manifest() is None:
                self._folder.prepare(self._claim, self._store)
                status = self._supervise()
            manifest = self._folder.manifest()
            try:
                outputs = self._folder.store_outputs(manifest, self._store) if manifest else []
            finally:
                self._reporter.finish(shutting_down)  # which copies the last events, whatever became of it
            self._end(status, manifest, outputs)
        except LeaseLost:
            raise
        except Exception as error:
            if isinstance(error, DBAPIError) and is_unreachable(error):
                raise
            self._write(fail, status, error=self._logged(error).as_dict())
        finally:
            self._reporter.end()

    def _supervise(self) -> int:
        """Keep the engine until it ends, and stop it when it is no longer wanted; returns its exit status."""
        engine = SupervisedEngine(
            self._folder.path,
            self._folder.log(self._claim.attempt),
            silence=self._settings.lease_seconds,
            grace=self._settings.stop_grace_seconds,
            environment=endpoint_environment(self._claim.inputs, self._settings),
        )
        while (status := engine.wait(_BEAT_SECONDS)) is None:
            engine.beat()
            grace = self._grace_to_stop()
            if grace is not None and (self._grace is None or grace < self._grace):
                self._grace = grace
                engine.stop(grace)
        return status

    def _grace_to_stop(self) -> float | None:
        """Seconds that the engine gets to stop, if it is to."""
        if self._reporter.broken is not None or self._reporter.wanted is Wanted.CANCEL:
            return _CANCEL_GRACE_SECONDS
        if self._reporter.wanted is Wanted.PAUSE or shutting_down.is_set():
            return self._settings.stop_grace_seconds
        return None

    def _end(self, status: int | None, manifest: dict[str, Any] | None, outputs: list[Output]) -> None:
        if manifest is not None:
            self._write(succeed, status, result=manifest["result"], manifest=manifest, outputs=outputs)
        elif self._grace is not None or status == EXIT_INTERRUPTED:
            self._write(interrupt, status)
        else:
            error = self._error(status)
            kept = self._folder.store_ledger(self._store) if "summary" in error else []
            self._write(fail, status, error=error, outputs=kept)

    def _error(self, status: int | None) -> dict[str, Any]:
        """What the engine reported, or what its silence means."""
        if status == EXIT_FAILED and self._reporter.engine_error is not None:
            return self._reporter.engine_error
        try:
            self._folder.probe()
        except OSError as error:
            return as_deft_error(error).as_dict()
        return StageCrashed(
            f"the engine ended without a word (exit status {status})",
            hint="it was killed or crashed, often for lack of memory; the attempt's log has its last output",
        ).as_dict()

    def _logged(self, error: Exception) -> DeftError:
        """The error as a member of the tree; the log gets a line, and of a defect its traceback."""
        known = as_deft_error(error)
        if known.error_code == "internal_error":
            log.exception("attempt_failed")
            return known
        place = (error.filename2 or error.filename) if isinstance(error, OSError) else None
        where = str(place or self._settings.home)
        log.error("attempt_failed", error=known.message, where=where, hint=known.hint)
        return known

    def _write(self, transition: Callable[..., None], status: int | None, **fields: object) -> None:
        """Carry out a transition of ``app.db.claims``, however long the database is away."""
        ended = AttemptEnd(status, self._folder.log_tail(self._claim.attempt))

        def once() -> None:
            with transaction() as session:
                transition(session, self._claim, ended=ended, **fields)

        when_reachable(once, shutting_down)
        log.info("attempt_ended", outcome=transition.__name__, exit_status=status)
