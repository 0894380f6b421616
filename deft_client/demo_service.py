"""The demo's service: started in a temporary home, and ended with the demo however that ends."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from deft_client.cli.output import notes
from deft_client.client import DeftClient
from deft_client.errors import DeftClientError

READY_SECONDS = 90.0
STOP_SECONDS = 40.0


@dataclass(frozen=True)
class DemoService:
    """A running service of one's own."""

    home: Path
    url: str
    client: DeftClient
    """With the administrator's key."""


@contextmanager
def temporary_service(keep: bool) -> Iterator[DemoService]:
    """A service in a fresh home; in the end, SIGTERM's and SIGHUP's too, it is stopped and its home removed.

    Args:
        keep: Leave both, if all went well.

    Raises:
        DeftClientError: it did not start.
    """
    home = Path(tempfile.mkdtemp(prefix="deft-demo-"))
    notes.print(f"Starting the service in {home} ...")
    kept = False
    with _signals_end_it():
        process = _start(home)
        try:
            url, key_file = _announced(home, process)
            with DeftClient(url, key_file.read_text(encoding="utf-8").strip()) as client:
                yield DemoService(home, url, client)
            kept = keep
        finally:
            if not kept:
                _stop(process)
                shutil.rmtree(home, ignore_errors=True)
    if kept:
        notes.print(f"The service goes on at {url}; stop it with: kill {process.pid}")


@contextmanager
def _signals_end_it() -> Iterator[None]:
    """The first request to end becomes an exception, so that what was started is stopped on the way out."""

    def end(number: int, _frame: FrameType | None) -> None:
        for each in former:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    former = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _start(home: Path) -> subprocess.Popen[bytes]:
    address = ["--home", str(home), "--host", "127.0.0.1", "--port", "0"]
    with (home / "demo.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "app.embedded", *address],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _announced(home: Path, process: subprocess.Popen[bytes]) -> tuple[str, Path]:
    """The service's address and the file of its key, when it is ready."""
    deadline = time.monotonic() + READY_SECONDS
    announcement = home / "service.json"
    while not announcement.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            said = (home / "demo.log").read_text(encoding="utf-8", errors="replace")
            raise DeftClientError(f"the service did not start; it said:\n{said[-2000:]}")
        time.sleep(0.1)
    service = json.loads(announcement.read_text(encoding="utf-8"))
    notes.print(
        f"The service is ready: {service['url']} (log in with the key in {service['admin_key_file']})",
        highlight=False,
        soft_wrap=True,
    )
    return service["url"], Path(service["admin_key_file"])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
