"""Asking the service again and again until something has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from deft_client.errors import WaitTimeout


class HasStatus(Protocol):
    """A job, dataset or experiment."""

    @property
    def status(self) -> str: ...


T = TypeVar("T", bound=HasStatus)


class Watch:
    """How long a wait may last."""

    def __init__(self, what: str, timeout: float | None) -> None:
        self._what, self._timeout = what, timeout
        self._started = time.monotonic()

    def check(self, status: str) -> None:
        """Raise ``WaitTimeout`` when the time is over."""
        if self._timeout is not None and time.monotonic() - self._started > self._timeout:
            raise WaitTimeout(f"{self._what} is still {status} after {self._timeout:g} s")


def wait_until(
    ended: Callable[[T], bool],
    retrieve: Callable[[], T],
    watch: Watch,
    poll: float,
    on_progress: Callable[[T], None] | None = None,
) -> T:
    """The first state that has ``ended``, asked for every ``poll`` seconds.

    Raises:
        WaitTimeout: there was none in time.
    """
    while True:
        state = retrieve()
        if on_progress is not None:
            on_progress(state)
        if ended(state):
            return state
        watch.check(state.status)
        time.sleep(poll)


async def async_wait_until(
    ended: Callable[[T], bool],
    retrieve: Callable[[], Awaitable[T]],
    watch: Watch,
    poll: float,
    on_progress: Callable[[T], None] | None = None,
) -> T:
    """As ``wait_until``."""
    while True:
        state = await retrieve()
        if on_progress is not None:
            on_progress(state)
        if ended(state):
            return state
        watch.check(state.status)
        await asyncio.sleep(poll)
