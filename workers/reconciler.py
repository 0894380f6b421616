"""The thread of every worker that keeps jobs going: see ``app.db.reconcile``."""

from __future__ import annotations

import shutil
import threading
import time

import structlog
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from app.db.graph import ENDED_STAGES
from app.db.models import StageRun
from app.db.reconcile import reconcile
from app.db.session import transaction
from app.queue import waiting_messages
from app.settings import Settings
from deft_engine.stages import Queue

log = structlog.get_logger()


class Reconciler(threading.Thread):
    """Reconciles every ``reconcile_seconds`` until ``leaving`` is set; one worker's works at a time.

    It takes no lease back before it has been in touch with the database for as long as a lease lasts.
    """

    def __init__(self, settings: Settings, leaving: threading.Event) -> None:
        super().__init__(name="reconciler", daemon=True)
        self._settings = settings
        self._leaving = leaving
        self._cut_off_at = time.monotonic()  # or not there yet

    def run(self) -> None:
        """A pass that fails is logged; the next one tries again."""
        while not self._leaving.wait(self._settings.reconcile_seconds):
            try:
                self._reconcile()
                self._remove_folders()
            except DBAPIError as error:
                self._cut_off_at = time.monotonic()
                log.warning("database_unreachable", error=str(error.orig))
            except Exception:
                log.exception("reconcile_failed")

    def _reconcile(self) -> None:
        messages = {queue.value: waiting_messages(queue.value) for queue in Queue}
        answered = {queue: waiting for queue, waiting in messages.items() if waiting is not None}
        in_touch = time.monotonic() - self._cut_off_at
        with transaction() as session:
            reconcile(session, self._settings, answered, take_back=in_touch >= self._settings.lease_seconds)

    def _remove_folders(self) -> None:
        """Remove the folders of stage runs that have ended: what is worth keeping is in the store."""
        root = self._settings.runs_root
        folders = [entry.name for entry in root.iterdir()] if root.is_dir() else []
        if not folders:
            return
        with transaction() as session:
            ended = session.scalars(
                select(StageRun.id).where(StageRun.id.in_(folders), StageRun.status.in_(ENDED_STAGES))
            ).all()
        for name in ended:
            shutil.rmtree(root / name, ignore_errors=True)
