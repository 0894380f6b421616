"""Runs one stage on several processes: torchrun starts them, this process speaks for them when they are done.

They run here, or spread over the hosts that the operator lists (``hostfile``).

The first of them writes events, artifacts and the manifest as a single process would. One that fails leaves
its error in the stage's ``work/`` and ends, whereupon torchrun ends the others, so that none waits for ever.
A stop is asked for by a file, not by a signal: torchrun would kill its processes half a minute after the
signal, checkpoint or no checkpoint.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deft_engine.canonical import canonical_json
from deft_engine.errors import DeftError, StageCrashed
from deft_engine.hostfile import hosts_for, remote_command, remote_script
from deft_engine.orphans import end_with_parent

if TYPE_CHECKING:
    from deft_engine.run import StopRequest

_LOOK_SECONDS = 0.2
_STOP = ".stop"
_FAILURE = "failure.json"


def launch(folder: Path, processes: int, stop: StopRequest) -> dict[str, Any] | None:
    """Run the stage of ``folder`` on ``processes`` processes, until all of them have ended.

    Returns:
        The error object of the first process that failed, or None.
    """
    work = folder / "work"
    for name in (_STOP, _FAILURE):  # of an earlier attempt
        (work / name).unlink(missing_ok=True)
    started = _start(folder, processes)
    try:
        status = _wait(started, work / _STOP, stop)
    finally:
        for torchrun in started:
            torchrun.kill()
            torchrun.wait()
    if (work / _FAILURE).exists():
        return json.loads((work / _FAILURE).read_bytes())  # type: ignore[no-any-return]
    if status == 0 or stop:  # of those that stopped by themselves, one may have waited in vain
        return None
    return StageCrashed(
        f"one of its {processes} processes ended without a word",
        hint="it was killed or crashed, often for lack of memory; the log has its last output",
    ).as_dict()


def stop_asked(folder: Path) -> bool:
    """Whether the processes of a stage are asked to stop."""
    return (folder / "work" / _STOP).exists()


def report_failure(folder: Path, error: DeftError) -> None:
    """Leave this process's error for the launcher; the first one to fail is heard."""
    with suppress(FileExistsError), (folder / "work" / _FAILURE).open("xb") as file:
        file.write(canonical_json(error.as_dict()))


def _start(folder: Path, processes: int) -> list[subprocess.Popen[bytes]]:
    """A torchrun on this machine, or on each of the hosts that the operator lists."""
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    work = ["-m", "deft_engine.rank_process", str(folder)]
    hosts = hosts_for(processes)
    if not hosts:
        local = ["--standalone", "--nproc-per-node", str(processes)]
        return [_popen([*torchrun, *local, *work], processes)]
    meeting = [
        "--nnodes",
        str(len(hosts)),
        "--master-addr",
        hosts[0].name,
        "--master-port",
        str(_free_port()),
    ]
    started = []
    for rank, host in enumerate(hosts):
        own = ["--node-rank", str(rank), "--nproc-per-node", str(host.processes)]
        script = remote_script([*torchrun, *meeting, *own, *work], _environment(host.processes))
        started.append(_popen(remote_command(host), host.processes, script))
    return started


def _popen(command: list[str], processes: int, script: str | None = None) -> subprocess.Popen[bytes]:
    started = subprocess.Popen(
        command,
        env=_environment(processes),
        stdin=subprocess.DEVNULL if script is None else subprocess.PIPE,
        start_new_session=True,  # a terminal's Ctrl-C is for this process to pass on
        preexec_fn=end_with_parent(signal.SIGKILL),  # noqa: PLW1509  (other threads hold no lock here)
    )
    if script is not None and started.stdin is not None:
        with suppress(BrokenPipeError), started.stdin:  # it ended at once: its status says so
            started.stdin.write(script.encode())
    return started


def _wait(started: Sequence[subprocess.Popen[bytes]], stop_file: Path, stop: StopRequest) -> int:
    """0 when all have ended well, else the status of the first that has not."""
    while True:
        statuses = [torchrun.poll() for torchrun in started]
        failed = [status for status in statuses if status]
        if failed or None not in statuses:
            return failed[0] if failed else 0
        if stop:
            stop_file.touch()
        with suppress(subprocess.TimeoutExpired):
            started[statuses.index(None)].wait(_LOOK_SECONDS)


def _free_port() -> int:
    """A port that nothing listens on; here it is free on the first host, where the processes meet."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment(processes: int) -> dict[str, str]:
    """The cores shared out, where the user has not said how many threads a process is to have."""
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    return {"OMP_NUM_THREADS": str(threads), **os.environ}
