"""Signals as something a loop can wait for, instead of code that runs between any two lines."""

from __future__ import annotations

import select
import signal
import socket
from types import FrameType

_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(Exception):
    """The service was asked to stop before it was up."""


class Signals:
    """A context manager; main thread only. A child's end (SIGCHLD) wakes the waiter too."""

    def __init__(self) -> None:
        self.stop_requests = 0
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def __enter__(self) -> Signals:
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._former = {number: signal.signal(number, self._on_stop) for number in _STOPPING}
        self._former[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._reader.close()
        self._writer.close()

    def wait(self, seconds: float) -> None:
        """Return after a signal, at the latest after ``seconds``."""
        ready, _, _ = select.select([self._reader], [], [], seconds)
        if ready:
            self._reader.recv(4096)

    def check(self) -> None:
        """Raise :class:`Stopped` if a stop was asked for."""
        if self.stop_requests:
            raise Stopped

    def hurried(self) -> bool:
        """Whether a stop was asked for twice."""
        return self.stop_requests > 1

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stop_requests += 1
