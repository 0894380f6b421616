"""A limit on the processor time of code that comes from outside, such as a tokenizer's chat template."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class TooSlow(Exception):
    """The limit was reached."""


@contextmanager
def cpu_time_limit(seconds: float) -> Iterator[None]:
    """Raise ``TooSlow`` within it once this process has computed for so long; waiting does not count.

    It works by a signal, so in the main thread alone, where stages run; elsewhere there is no limit. Nor is
    there one within a single call of a C function.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise TooSlow(f"stopped after {seconds:g} seconds")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
