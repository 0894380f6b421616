"""A demo that is told to end, or loses its terminal, takes its service along."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.output_lines import lines_up_to


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_nothing_is_left_of_a_demo_that_is_ended(number: signal.Signals, home: Path) -> None:
    with _not_ignored(number):
        demo = subprocess.Popen(
            [str(Path(sys.executable).with_name("deft")), "demo"],
            env={**os.environ, "TMPDIR": str(home)},
            stderr=subprocess.PIPE,
            text=True,
        )
    assert demo.stderr is not None
    said = lines_up_to("The service is ready", demo.stderr)
    assert "The service is ready" in said[-1], said
    (announcement,) = home.glob("deft-demo-*/service.json")
    service = psutil.Process(json.loads(announcement.read_text(encoding="utf-8"))["pid"])
    family = [service, *service.children(recursive=True)]

    demo.send_signal(number)
    demo.stderr.read()

    assert demo.wait(timeout=60) == (130 if number == signal.SIGINT else 128 + number)
    assert psutil.wait_procs(family, timeout=0)[1] == []
    assert not announcement.parent.exists()


@contextmanager
def _not_ignored(number: signal.Signals) -> Iterator[None]:
    """Within it, processes start with the signal's default action, also under ``nohup`` or behind ``&``."""
    former = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(number, former)
