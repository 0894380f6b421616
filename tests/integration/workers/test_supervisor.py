"""The supervisor alone, over small programs instead of the engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.worker_world import until

SUPERVISE = """
import sys
from workers.supervisor import Supervisor
silence, grace, *command = sys.argv[1:]
sys.exit(Supervisor(command, silence=float(silence), grace=float(grace)).run())
"""
OBEDIENT = """
import pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
pathlib.Path(sys.argv[1], f"ready-{len(sys.argv)}").touch()
while True: signal.pause()
"""
STUBBORN = OBEDIENT.replace("lambda *_: sys.exit(75)", "signal.SIG_IGN")
FAMILY = f"""
import subprocess, sys
child = [sys.executable, "-c", {STUBBORN!r}, sys.argv[1]]
daemon = [sys.executable, "-c", {STUBBORN!r}, sys.argv[1], "of a session of its own"]
subprocess.Popen(daemon, start_new_session=True)
subprocess.Popen(child).wait()
"""

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a program under a supervisor, and waits until ``ready`` of its processes run."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        program: str, *, silence: float = 60, grace: float = 60, ready: int = 1
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SUPERVISE, str(silence), str(grace)]
        command += [sys.executable, "-c", program, str(tmp_path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0, start_new_session=True)
        started.append(process)
        until(lambda: len(list(tmp_path.glob("ready-*"))) == ready, patience=30)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()
    until(lambda: not processes(tmp_path), patience=10)


def processes(folder: Path) -> list[int]:
    """Ids of the programs that run for a test (not of their supervisor)."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if (
            str(folder) in command
            and SUPERVISE not in command
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ):
            found.append(process.pid)
    return found


def end(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Exit status, and seconds until it came."""
    began = time.monotonic()
    return process.wait(30), time.monotonic() - began


def say(process: subprocess.Popen[bytes], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line.encode())


def close(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


@pytest.mark.parametrize("status", [0, 1, 75])
def test_the_exit_status_is_the_programs(start: Start, status: int) -> None:
    assert end(start(f"import sys; sys.exit({status})", ready=0))[0] == status


def test_a_killed_program_gives_its_signal(start: Start) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert end(start(program, ready=0))[0] == 128 + signal.SIGKILL


@pytest.mark.parametrize(
    "ask", [close, lambda process: process.terminate(), lambda process: say(process, "stop 60\n")]
)
def test_the_program_is_asked_to_stop(start: Start, ask: Callable[[subprocess.Popen[bytes]], None]) -> None:
    process = start(OBEDIENT)
    ask(process)
    assert end(process)[0] == 75


def test_what_does_not_stop_is_killed_after_the_grace(start: Start, tmp_path: Path) -> None:
    process = start(STUBBORN)
    say(process, "stop 0.5\n")
    status, seconds = end(process)
    assert status == 128 + signal.SIGKILL
    assert 0.4 < seconds < 10
    assert processes(tmp_path) == []


def test_a_later_stop_may_shorten_the_grace(start: Start) -> None:
    process = start(STUBBORN)
    say(process, "stop 60\nstop 0.1\n")
    status, seconds = end(process)
    assert (status, seconds < 10) == (128 + signal.SIGKILL, True)


def test_silence_stops_the_program_and_beats_keep_it(start: Start) -> None:
    process = start(OBEDIENT, silence=1.5)
    for _ in range(6):
        say(process, "beat\n")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
    assert end(process)[0] == 75


def test_descendants_go_too_also_those_of_another_session(start: Start, tmp_path: Path) -> None:
    process = start(FAMILY, grace=0.2, ready=2)
    assert len(processes(tmp_path)) == 3
    close(process)
    end(process)
    assert processes(tmp_path) == []


def test_orphans_of_a_program_that_ended_are_killed(start: Start, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    process = start(FAMILY.replace(".wait()", "") + f"open({str(go)!r}).close()", ready=2)
    go.write_text("")  # the program, which waits for somebody to open it, ends
    assert end(process)[0] == 0
    assert processes(tmp_path) == []


def test_the_program_dies_with_a_killed_supervisor(start: Start, tmp_path: Path) -> None:
    process = start(STUBBORN)
    process.kill()
    process.wait()
    until(lambda: not processes(tmp_path), patience=10)
