"""How the worker asks its engine to stop, and what it says of an engine's progress."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from app.db.claims import Claim
from app.db.graph import Wanted
from app.settings import Settings
from deft_engine.events import EventWriter
from workers import reporter, run_stage
from workers.reporter import Reporter
from workers.run_folder import RunFolder

SECOND_ATTEMPT = Claim("run_1", 2, "train", "f" * 64, {}, ())


class StoppedEngine:
    """An engine that takes the stop requests and ends when it has seen all that is to come."""

    def __init__(self, wants: list[Wanted], run: Any) -> None:
        self.graces: list[float] = []
        self._wants = iter(wants)
        self._run = run

    def wait(self, timeout: float) -> int | None:
        want = next(self._wants, None)
        if want is None:
            return 75
        self._run._reporter.wanted = want
        return None

    def beat(self) -> None:
        pass

    def stop(self, grace: float) -> None:
        self.graces.append(grace)


@pytest.mark.parametrize(
    ("wants", "graces"),
    [
        ([Wanted.RUN, Wanted.RUN], []),
        ([Wanted.RUN, Wanted.PAUSE, Wanted.PAUSE], [30.0]),
        ([Wanted.PAUSE, Wanted.CANCEL, Wanted.CANCEL], [30.0, 3.0]),  # a cancel does not wait for the pause
        ([Wanted.CANCEL, Wanted.PAUSE], [3.0]),
    ],
)
def test_a_later_request_to_stop_only_shortens_the_grace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wants: list[Wanted], graces: list[float]
) -> None:
    run = run_stage._Run(SECOND_ATTEMPT, Settings(home=tmp_path, stop_grace_seconds=30))
    engine = StoppedEngine(wants, run)
    monkeypatch.setattr(run_stage, "SupervisedEngine", lambda *_, **__: engine)
    assert run._supervise() == 75
    assert engine.graces == graces


def test_the_time_left_goes_by_the_progress_of_this_attempt_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    with EventWriter(folder.events(1)) as earlier:
        earlier.progress(10, 100)
        earlier.progress(20, 100)
    with EventWriter(folder.events(2)) as now:
        now.progress(20, 100)
        now.progress(60, 100)
    copied: list[tuple[int, float | None]] = []

    def ingest(session: object, claim: Claim, attempt: int, events: list[dict[str, Any]]) -> None:
        copied.extend((attempt, event["eta_s"]) for event in events)

    monkeypatch.setattr(reporter, "ingest", ingest)
    monkeypatch.setattr(reporter, "transaction", nullcontext)
    reporting = Reporter(SECOND_ATTEMPT, folder, Settings(home=tmp_path, heartbeat_seconds=3600))
    reporting.start()
    reporting.finish(Event())
    assert copied[:3] == [(1, None), (1, None), (2, None)]
    attempt, seconds = copied[3]
    assert attempt == 2
    assert seconds is not None
    assert seconds >= 0
