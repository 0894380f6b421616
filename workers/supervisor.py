"""Keeps one engine process, and ends it with all its descendants when its worker goes: a program of its own.

``python -m workers.supervisor FOLDER --silence S --grace S`` runs ``python -m deft_engine stage FOLDER`` and
is started in a session of its own. The worker writes lines to its standard input::

    beat          the worker lives; without a beat for ``--silence`` seconds the engine is stopped
    stop SECONDS  stop the engine: SIGTERM, and SIGKILL after so many seconds

The end of the input (the worker died) and SIGTERM stop it too, with ``--grace``. No process outlives the
supervisor: it adopts orphans (a Linux subreaper) and kills what is left; and should it be killed itself, the
kernel kills the engine with it. The exit status is the engine's, or 128 + the signal that ended it.
"""

from __future__ import annotations

import argparse
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil

from deft_engine.orphans import adopt_orphans, end_with_parent

_KILL_AGAIN_SECONDS = 0.5


class Supervisor:
    """The loop between the worker's lines, signals, and the engine's end."""

    def __init__(self, command: list[str], *, silence: float, grace: float) -> None:
        self._silence = silence
        self._grace = grace
        self._kill_at: float | None = None
        self._heard = time.monotonic()
        self._input = b""
        self._wakeups = _signals_as_bytes()
        adopt_orphans()
        self._engine = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            preexec_fn=end_with_parent(signal.SIGKILL),  # noqa: PLW1509  (this process has one thread)
        )

    def run(self) -> int:
        """Wait for the engine's end, whoever brings it about; returns the exit status."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakeups, selectors.EVENT_READ, self._on_signals)
            selector.register(sys.stdin.fileno(), selectors.EVENT_READ, self._on_input)
            while self._engine.poll() is None:
                for key, _ in selector.select(self._seconds_to_wait()):
                    if not key.data():
                        selector.unregister(key.fd)
                self._look_at_the_clock()
        while left := _kill_descendants():
            psutil.wait_procs(left, timeout=1.0)
        status = self._engine.returncode
        return status if status >= 0 else 128 - status

    def _on_signals(self) -> bool:
        received = os.read(self._wakeups, 256)
        if signal.SIGTERM in received or signal.SIGINT in received:
            self._stop(self._grace)
        return True

    def _on_input(self) -> bool:
        data = os.read(sys.stdin.fileno(), 4096)
        if not data:
            self._stop(self._grace)
            return False
        self._heard = time.monotonic()
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            word, _, seconds = line.partition(b" ")
            if word == b"stop":
                self._stop(float(seconds))
        return True

    def _stop(self, grace: float) -> None:
        """Ask the engine to stop, once; a later request may only shorten the grace."""
        if self._kill_at is None:
            self._engine.send_signal(signal.SIGTERM)
        kill_at = time.monotonic() + grace
        self._kill_at = kill_at if self._kill_at is None else min(kill_at, self._kill_at)

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        if self._kill_at is None and now - self._heard >= self._silence:
            self._stop(self._grace)
        if self._kill_at is not None and now >= self._kill_at:
            _kill_descendants()
            self._kill_at = now + _KILL_AGAIN_SECONDS

    def _seconds_to_wait(self) -> float:
        until = self._heard + self._silence if self._kill_at is None else self._kill_at
        return max(0.0, until - time.monotonic())


def _signals_as_bytes() -> int:
    """A file descriptor on which SIGTERM, SIGINT and SIGCHLD arrive as bytes."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return reading


def _kill_descendants() -> list[psutil.Process]:
    """SIGKILL to all there are; a process that was forked meanwhile is met when this is called again."""
    descendants = psutil.Process().children(recursive=True)
    for process in descendants:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return descendants


def main() -> int:
    """Read the command line and supervise."""
    parser = argparse.ArgumentParser(prog="python -m workers.supervisor", description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--silence", type=float, required=True)
    parser.add_argument("--grace", type=float, required=True)
    parsed = parser.parse_args()
    command = [sys.executable, "-m", "deft_engine", "stage", parsed.folder]
    return Supervisor(command, silence=parsed.silence, grace=parsed.grace).run()


if __name__ == "__main__":
    sys.exit(main())
