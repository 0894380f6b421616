"""When requests may start: so many a minute, and none while the server asked to wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from deft_engine.errors import Interrupted


class Pacer:
    """Spaces the starts of requests over all threads.

    Args:
        per_minute: starts a minute, evenly spaced; None: as fast as they come.
        stopping: set to give up waiting.
        clock: seconds that only go forward.
        sleep: waits so many seconds, or until ``stopping`` is set.
    """

    def __init__(
        self,
        per_minute: int | None,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._interval = 60.0 / per_minute if per_minute else 0.0
        self._stopping = stopping
        self._clock = clock
        self._sleep = sleep or stopping.wait
        self._lock = threading.Lock()
        self._next = clock()

    def wait(self) -> None:
        """Return when a request may start.

        Raises:
            Interrupted: asked to stop.
        """
        with self._lock:
            now = self._clock()
            start = max(now, self._next)
            self._next = start + self._interval
        if start > now:
            self._sleep(start - now)
        if self._stopping.is_set():
            raise Interrupted("stopped on request")

    def hold(self, seconds: float) -> None:
        """Let no further request start for so many seconds."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)
