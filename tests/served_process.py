"""The service in a process of its own, on a port that it keeps: watched, killed and started again."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.worker_world import until

_PATIENCE = 60.0


class ServedProcess:
    """Started when it answers; it has this process's settings."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app"]
        self._command += ["--port", str(port), "--no-access-log", "--log-level", "warning"]
        self.start()

    @property
    def pid(self) -> int:
        """Of the running process."""
        return self._process.pid

    def start(self) -> None:
        """Run it, and wait until it answers."""
        self._process = subprocess.Popen(self._command)
        until(self._answers, patience=_PATIENCE)

    def end(self, by: signal.Signals) -> None:
        """Send a signal, and wait for the end."""
        self._process.send_signal(by)
        self._process.wait(20)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "the service ended at its start"
        try:
            return httpx.get(f"{self.url}/healthz").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def served_process() -> Iterator[ServedProcess]:
    """A service that is ended with the block."""
    process = ServedProcess()
    try:
        yield process
    finally:
        process.end(signal.SIGTERM)
