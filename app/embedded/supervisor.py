"""Keeps a list of children running: records them, restarts what dies, and stops all in order."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.embedded.process import EmbeddedError, ask, end, last_lines
from app.embedded.signals import Signals
from deft_engine.orphans import adopt_orphans

log = logging.getLogger("deft.up")

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 10.0
_STEADY_SECONDS = 60.0
_KILL_SECONDS = 10.0
_SAME_START_SECONDS = 1.0
_IDLE_SECONDS = 5.0
_POLL_SECONDS = 0.05


@dataclass
class Child:
    """A process to keep running. ``tier``: higher ones are stopped first, equal ones together."""

    name: str
    launch: Callable[[], subprocess.Popen[bytes]]
    log: Path
    tier: int
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 5.0
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    restart_at: float | None = None

    @property
    def running(self) -> bool:
        """Whether its process has been started and has not ended."""
        return self.process is not None and self.process.poll() is None


class Supervisor:
    """Runs children until a signal asks to stop; ``record`` names those that a SIGKILL may leave behind."""

    def __init__(self, record: Path, signals: Signals) -> None:
        self._record = record
        self._signals = signals
        self._children: list[Child] = []
        self._not_ours = {process.pid for process in psutil.Process().children()}
        adopt_orphans()

    def start(self, child: Child) -> None:
        """Launch a child, unless it already runs, and keep it running from now on."""
        self._children.append(child)
        if not child.running:
            child.process = child.launch()
        child.started_at = time.monotonic()
        self._write_record()

    def wait_until(self, what: str, ready: Callable[[], bool], seconds: float) -> None:
        """Wait for ``ready``.

        Raises:
            EmbeddedError: a child ended, or the time is over.
            Stopped: a stop was asked for.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            self._signals.check()
            for child in self._children:
                if not child.running:
                    raise EmbeddedError(
                        f"{child.name} ended at its start; {child.log} ends:\n{last_lines(child.log)}"
                    )
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"{what} is not ready after {seconds:.0f} s: see the logs in {child.log.parent}"
                )
            self._signals.wait(_POLL_SECONDS)

    def watch(self) -> None:
        """Restart what dies, later and later, until a stop is asked for."""
        while not self._signals.stop_requests:
            now = time.monotonic()
            for child in self._children:
                if child.restart_at is None and not child.running:
                    self._plan_restart(child, now)
                elif child.restart_at is not None and child.restart_at <= now:
                    self._restart(child, now)
            self._reap_orphans()
            due = [child.restart_at - now for child in self._children if child.restart_at is not None]
            self._signals.wait(max(0.0, min([_IDLE_SECONDS, *due])))

    def stop(self) -> None:
        """Stop the children tier by tier, then kill whatever they left."""
        for tier in sorted({child.tier for child in self._children}, reverse=True):
            ending = [child for child in self._children if child.tier == tier and child.process is not None]
            for child in ending:
                if child.process is not None:
                    ask(child.process, child.stop_signal)
            for child in ending:
                if child.process is not None:
                    end(child.process, child.grace_seconds, self._signals.hurried)
        _kill([left for process in self._processes() for left in _family(process)])
        self._reap_orphans()
        self._record.unlink(missing_ok=True)

    def _plan_restart(self, child: Child, now: float) -> None:
        if now - child.started_at > _STEADY_SECONDS:
            child.failures = 0
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0**child.failures)
        child.failures += 1
        child.restart_at = now + delay
        status = child.process.returncode if child.process else None
        log.warning(
            "%s ended (status %s); starting it again in %.1f s; its log: %s",
            child.name,
            status,
            delay,
            child.log,
        )

    def _restart(self, child: Child, now: float) -> None:
        child.restart_at = None
        child.started_at = now
        try:
            child.process = child.launch()
        except (EmbeddedError, OSError) as error:
            log.warning("%s does not start: %s", child.name, error)
            self._plan_restart(child, now)
            return
        self._write_record()

    def _processes(self) -> list[psutil.Process]:
        """This process's children since the supervisor was made: those it watches and adopted orphans."""
        return [child for child in psutil.Process().children() if child.pid not in self._not_ours]

    def _reap_orphans(self) -> None:
        """Take the status of ended grandchildren that we adopted; nobody else will."""
        watched = {child.process.pid for child in self._children if child.process}
        for process in self._processes():
            with suppress(psutil.Error, ChildProcessError):
                if process.pid not in watched and process.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(process.pid, os.WNOHANG)

    def _write_record(self) -> None:
        processes = []
        for child in self._children:
            if child.process is not None:
                with suppress(psutil.NoSuchProcess):
                    started = psutil.Process(child.process.pid).create_time()
                    processes.append({"name": child.name, "pid": child.process.pid, "started": started})
        write_whole(self._record, json.dumps(processes, indent=1))


def end_recorded(record: Path) -> None:
    """Kill what a SIGKILLed supervisor left behind: the recorded processes and all below them."""
    if not record.exists():
        return
    left: list[psutil.Process] = []
    for entry in json.loads(record.read_text()):
        with suppress(psutil.Error):
            process = psutil.Process(entry["pid"])
            if abs(process.create_time() - entry["started"]) < _SAME_START_SECONDS:
                log.warning("%s (pid %s) is left from an earlier run: killing it", entry["name"], process.pid)
                left += _family(process)
    _kill(left)
    record.unlink()


def write_whole(path: Path, text: str) -> None:
    """Write a file that only this user may read, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(text)
    partial.replace(path)


def _family(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return [*process.children(recursive=True), process]
    return []


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=_KILL_SECONDS)
