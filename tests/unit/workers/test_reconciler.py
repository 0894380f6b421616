"""When the thread that puts jobs right may take a lease back."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext

import pytest
from sqlalchemy.exc import OperationalError

from app.settings import get_settings
from workers import reconciler
from workers.reconciler import Reconciler

LEASE_SECONDS = 0.5


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    """Stands for ``app.db.reconcile``."""
    made = Database()
    monkeypatch.setattr(reconciler, "reconcile", made.reconcile)
    monkeypatch.setattr(reconciler, "transaction", nullcontext)
    monkeypatch.setattr(reconciler, "waiting_messages", lambda queue: 0)
    return made


class Database:
    """Notes when it was asked, and whether leases were to be taken back."""

    def __init__(self) -> None:
        self.is_away = False
        self.passes: list[tuple[float, bool]] = []
        self.last_failure = time.monotonic()
        self.asked = threading.Condition()

    def reconcile(self, *_: object, take_back: bool) -> None:
        with self.asked:
            self.asked.notify_all()
            if self.is_away:
                self.last_failure = time.monotonic()
                raise OperationalError("SELECT", {}, Exception("away"))
            self.passes.append((time.monotonic(), take_back))

    def wait_for_a_lease_taken_back(self) -> list[tuple[float, bool]]:
        """The passes until then."""
        with self.asked:
            assert self.asked.wait_for(lambda: self.passes and self.passes[-1][1], timeout=30)
            passes, self.passes = self.passes, []
            return passes


def test_a_reconciler_that_was_cut_off_lets_others_renew_first(database: Database) -> None:
    leaving = threading.Event()
    settings = get_settings().model_copy(update={"lease_seconds": LEASE_SECONDS, "reconcile_seconds": 0.05})
    thread = Reconciler(settings, leaving)
    thread.start()
    try:
        for _ in range(2):  # after its own start, and after the database was away
            passes = database.wait_for_a_lease_taken_back()
            assert passes[-1][0] - database.last_failure >= LEASE_SECONDS
            assert len(passes) > 1, "what has nothing to do with leases goes on"
            assert not any(take_back for _, take_back in passes[:-1])
            with database.asked:
                database.passes, database.is_away = [], True
                assert database.asked.wait(timeout=30)
            with database.asked:
                assert database.asked.wait(timeout=30)
                database.is_away = False
    finally:
        leaving.set()
        thread.join()
