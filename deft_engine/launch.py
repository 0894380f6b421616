"""Runs one stage on several processes: torchrun starts them, this process speaks for them when they are done.

The first of them writes events, artifacts and the manifest as a single process would. One that fails leaves
its error in the stage's ``work/`` and ends, whereupon torchrun ends the others, so that none waits for ever.
A stop is asked for by a file, not by a signal: torchrun would kill its processes half a minute after the
signal, checkpoint or no checkpoint.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deft_engine.canonical import canonical_json
from deft_engine.errors import DeftError, StageCrashed
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
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(processes)),
            *("-m", "deft_engine.rank_process", str(folder)),
        ],
        env=_environment(processes),
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a terminal's Ctrl-C is for this process to pass on
        preexec_fn=end_with_parent(signal.SIGKILL),  # noqa: PLW1509  (other threads hold no lock here)
    ) as torchrun:
        _wait(torchrun, work / _STOP, stop)
    if (work / _FAILURE).exists():
        return json.loads((work / _FAILURE).read_bytes())  # type: ignore[no-any-return]
    if torchrun.returncode == 0 or stop:  # of those that stopped by themselves, one may have waited in vain
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


def _wait(torchrun: subprocess.Popen[bytes], stop_file: Path, stop: StopRequest) -> None:
    while True:
        try:
            torchrun.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if stop:
                stop_file.touch()
            continue
        return


def _environment(processes: int) -> dict[str, str]:
    """The cores shared out, where the user has not said how many threads a process is to have."""
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    return {"OMP_NUM_THREADS": str(threads), **os.environ}
