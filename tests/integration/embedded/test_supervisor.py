"""The supervisor with small real processes: restarts, order, leftovers, orphans."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from app.embedded.process import EmbeddedError, spawn
from app.embedded.signals import Signals, Stopped
from app.embedded.supervisor import Child, Supervisor, end_recorded

SLEEPER = "import signal; print('up', flush=True); signal.pause()"
NOTES_ITS_END = """
import signal, sys
def end(*_):
    open(sys.argv[1], 'a').write(sys.argv[2] + ' ')
    sys.exit()
signal.signal(signal.SIGTERM, end)
print('up', flush=True)
while True: signal.pause()
"""
STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True: signal.pause()
"""
HAS_A_CHILD = """
import signal, subprocess
subprocess.Popen(["sleep", "600"])
print("up", flush=True)
signal.pause()
"""


@pytest.fixture
def signals() -> Iterator[Signals]:
    with Signals() as installed:
        yield installed


@pytest.fixture
def supervisor(home: Path, signals: Signals) -> Iterator[Supervisor]:
    supervisor = Supervisor(home / "processes.json", signals)
    yield supervisor
    supervisor.stop()


@pytest.fixture
def child(home: Path) -> Callable[..., Child]:
    def make(name: str, code: str, *arguments: str, tier: int = 1, grace_seconds: float = 5.0) -> Child:
        log = home / f"{name}.log"
        command = [sys.executable, "-c", code, *arguments]
        launch = partial(spawn, command, log=log, end_signal=signal.SIGKILL)
        return Child(name=name, launch=launch, log=log, tier=tier, grace_seconds=grace_seconds)

    return make


def is_up(child: Child) -> bool:
    return "up" in child.log.read_text()


def test_a_killed_child_is_started_again(supervisor: Supervisor, child: Callable[..., Child]) -> None:
    sleeper = child("sleeper", SLEEPER)
    supervisor.start(sleeper)
    supervisor.wait_until("the sleeper", partial(is_up, sleeper), 10)
    assert sleeper.process is not None
    first = sleeper.process.pid
    launched = sleeper.launch

    def launch_and_ask_to_stop() -> subprocess.Popen[bytes]:
        os.kill(os.getpid(), signal.SIGTERM)
        return launched()

    sleeper.launch = launch_and_ask_to_stop
    sleeper.process.kill()
    supervisor.watch()
    assert sleeper.process.pid != first
    assert sleeper.process.poll() is None


def test_a_child_that_keeps_dying_is_started_later_and_later(
    supervisor: Supervisor, child: Callable[..., Child]
) -> None:
    doomed = child("doomed", "raise SystemExit(3)")
    delays = []
    for _ in range(9):
        supervisor._plan_restart(doomed, now=0.0)
        assert doomed.restart_at is not None
        delays.append(doomed.restart_at)
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 10.0


def test_a_child_that_dies_at_the_start_is_named_with_the_end_of_its_log(
    supervisor: Supervisor, child: Callable[..., Child]
) -> None:
    supervisor.start(child("doomed", "raise SystemExit('no disk')"))
    with pytest.raises(EmbeddedError, match=r"doomed ended at its start.*\nno disk"):
        supervisor.wait_until("it", lambda: False, 10)


def test_a_signal_during_the_start_stops_it(supervisor: Supervisor, child: Callable[..., Child]) -> None:
    supervisor.start(child("sleeper", SLEEPER))
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped):
        supervisor.wait_until("it", lambda: False, 10)


def test_higher_tiers_stop_first(supervisor: Supervisor, child: Callable[..., Child], home: Path) -> None:
    notes = home / "notes"
    for name, tier in (("database", 1), ("api", 2)):
        started = child(name, NOTES_ITS_END, str(notes), name, tier=tier)
        supervisor.start(started)
        supervisor.wait_until(name, partial(is_up, started), 10)
    supervisor.stop()
    assert notes.read_text() == "api database "
    assert not (home / "processes.json").exists()


def test_a_second_signal_does_not_wait_for_a_stubborn_child(
    supervisor: Supervisor, child: Callable[..., Child]
) -> None:
    stubborn = child("stubborn", STUBBORN, grace_seconds=600)
    supervisor.start(stubborn)
    supervisor.wait_until("it", partial(is_up, stubborn), 10)
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    supervisor.stop()
    assert stubborn.process is not None
    assert stubborn.process.returncode == -signal.SIGKILL


def test_grandchildren_whose_parent_was_killed_do_not_outlive_the_stop(
    supervisor: Supervisor, child: Callable[..., Child]
) -> None:
    parent = child("parent", HAS_A_CHILD)
    supervisor.start(parent)
    supervisor.wait_until("it", partial(is_up, parent), 10)
    assert parent.process is not None
    (grandchild,) = psutil.Process(parent.process.pid).children()
    parent.process.kill()
    parent.process.wait()
    assert grandchild.is_running()
    supervisor.stop()
    assert not psutil.pid_exists(grandchild.pid)


def test_children_that_the_process_had_before_are_spared(home: Path, signals: Signals) -> None:
    before = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.DEVNULL)
    try:
        Supervisor(home / "processes.json", signals).stop()
        assert before.poll() is None
    finally:
        before.kill()
        before.wait()


def test_recorded_processes_of_an_earlier_run_are_killed_and_strangers_spared(home: Path) -> None:
    left = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.DEVNULL)
    stranger = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.DEVNULL)
    try:
        entries = [
            {"name": "left", "pid": left.pid, "started": psutil.Process(left.pid).create_time()},
            {
                "name": "reused",
                "pid": stranger.pid,
                "started": psutil.Process(stranger.pid).create_time() - 900,
            },
        ]
        record = home / "processes.json"
        record.write_text(json.dumps(entries))
        end_recorded(record)
        assert not psutil.pid_exists(left.pid)
        assert stranger.poll() is None
        assert not record.exists()
    finally:
        left.kill()
        stranger.kill()
        left.wait()
        stranger.wait()
