"""What the Linux kernel does for processes whose parent ends; elsewhere these functions do nothing."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # not loaded between fork and exec


def adopt_orphans() -> None:
    """Make this process the parent of its descendants' orphans, so that none of them can get away."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_this_with_parent(end_signal: signal.Signals) -> None:
    """The kernel sends this process ``end_signal`` when the thread that started it ends."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(end_signal), 0, 0, 0)


def end_with_parent(end_signal: signal.Signals) -> Callable[[], None]:
    """A ``preexec_fn``: the kernel sends the child ``end_signal`` when the thread that started it ends."""
    parent = os.getpid()

    def before_exec() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(end_signal), 0, 0, 0)
            if os.getppid() != parent:  # it died before the kernel knew
                os._exit(1)

    return before_exec
