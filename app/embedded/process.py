"""Child processes that end with their parent, folders of one owner, and locks on folders."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from deft_engine.orphans import end_with_parent

_LOG_LIMIT = 50 * 2**20
_LOOK_SECONDS = 0.05


class EmbeddedError(Exception):
    """Something on this machine keeps the service from running here; the text says what, and what to do."""


@dataclass(frozen=True)
class Account:
    """The user as whom a child runs."""

    uid: int
    gid: int
    name: str


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path,
    end_signal: signal.Signals,
    environment: Mapping[str, str] | None = None,
    account: Account | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, its output appended to ``log``.

    The kernel sends it ``end_signal`` when the calling *thread* ends (Linux): call from the main thread.
    """
    with open_log(log) as output:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/" if account else None,
            env=None if environment is None else dict(environment),
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            umask=0o077,
            start_new_session=True,
            pass_fds=pass_fds,
            # called after setuid, which would clear it again
            preexec_fn=end_with_parent(end_signal),  # noqa: PLW1509 (the supervisor has one thread)
        )


@contextmanager
def open_log(path: Path) -> Iterator[int]:
    """A descriptor that appends to ``path``; a file that grew beyond 50 MiB is put aside as ``.1`` first."""
    if path.exists() and path.stat().st_size > _LOG_LIMIT:
        path.replace(path.with_name(path.name + ".1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def stop(process: subprocess.Popen[bytes], with_signal: signal.Signals, grace_seconds: float) -> None:
    """Ask a child to end, wait, and kill it when its grace is over."""
    ask(process, with_signal)
    end(process, grace_seconds)


def ask(process: subprocess.Popen[bytes], with_signal: signal.Signals) -> None:
    """Send a signal to a child that still runs."""
    if process.poll() is None:
        process.send_signal(with_signal)


def end(
    process: subprocess.Popen[bytes], grace_seconds: float, hurried: Callable[[], bool] = lambda: False
) -> None:
    """Wait for a child that was asked to end; kill it when its grace is over or ``hurried`` says so."""
    deadline = time.monotonic() + grace_seconds
    while process.poll() is None:
        if time.monotonic() >= deadline or hurried():
            process.kill()
            process.wait()
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_LOOK_SECONDS)


def private_folder(path: Path, account: Account | None = None) -> Path:
    """Make ``path`` a folder that only its owner (``account``, else this user) may enter.

    Raises:
        EmbeddedError: it exists and belongs to somebody else.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = account.uid if account else os.geteuid()
    status = path.lstat()
    if status.st_uid == os.geteuid() != owner and account is not None:
        os.chown(path, account.uid, account.gid)
    elif status.st_uid != owner:
        raise EmbeddedError(f"{path} belongs to user {status.st_uid}, not {owner}: move it away or chown it")
    path.chmod(0o700)
    return path


@contextmanager
def exclusive(path: Path, message: str) -> Iterator[None]:
    """Hold the lock file ``path``, which the kernel gives back even after a SIGKILL.

    Raises:
        EmbeddedError: another process holds it; the text is ``message``.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedError(message) from None
        yield
    finally:
        os.close(descriptor)


def last_lines(log: Path, lines: int = 5) -> str:
    """The end of a log, for an error's text."""
    if not log.exists():
        return "(no log)"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
