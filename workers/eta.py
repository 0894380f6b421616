"""How long a stage will still take, from the progress of this attempt."""

from __future__ import annotations

from datetime import datetime
from typing import Any


class Eta:
    """Goes by the mean speed since the first progress that it saw."""

    def __init__(self) -> None:
        self._first: tuple[datetime, int] | None = None

    def seconds_left(self, event: dict[str, Any]) -> float | None:
        """Seconds until ``total`` for a ``progress`` event; None while the speed or the total is unknown."""
        now = datetime.fromisoformat(event["time"])
        step: int = event["step"]
        total: int | None = event["total"]
        if self._first is None:
            self._first = (now, step)
        began, first_step = self._first
        seconds, steps = (now - began).total_seconds(), step - first_step
        if total is None or steps <= 0 or seconds <= 0:
            return None
        return round((total - step) * seconds / steps, 1)
