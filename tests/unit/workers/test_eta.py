from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from workers.eta import Eta


def progress(seconds: float, step: int, total: int | None) -> dict[str, Any]:
    time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return {"time": time.isoformat(), "step": step, "total": total}


def test_the_time_left_goes_by_the_speed_since_the_first_progress() -> None:
    eta = Eta()
    assert eta.seconds_left(progress(100, 50, 200)) is None  # resumed at 50; no speed yet
    assert eta.seconds_left(progress(110, 60, 200)) == 140.0
    assert eta.seconds_left(progress(120, 100, 200)) == 40.0
    assert eta.seconds_left(progress(130, 200, 200)) == 0.0


def test_no_time_without_a_total_or_without_movement() -> None:
    eta = Eta()
    eta.seconds_left(progress(0, 0, None))
    assert eta.seconds_left(progress(10, 5, None)) is None
    assert eta.seconds_left(progress(10, 0, 10)) is None
