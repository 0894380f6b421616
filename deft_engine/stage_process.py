"""``python -m deft_engine.stage_process DIR``: one stage as a child process that ends with its parent.

The parent holds the other end of standard input; when it dies, however it dies, the stage is asked to stop.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from deft_engine.endpoints.hosts import EVERYTHING, HOSTS_VARIABLE
from deft_engine.environment import engine_environment
from deft_engine.run import StopRequest, execute, install_signal_handlers

LOG = "output.log"
"""File in the stage's folder with what its process printed."""


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start the stage that ``folder/stage.json`` asks for; SIGTERM asks it to stop."""
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "deft_engine.stage_process", str(folder)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={HOSTS_VARIABLE: EVERYTHING, **engine_environment(os.environ)},  # the caller is the operator
        )


def _stop_with_parent(stop: StopRequest) -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the parent's end is closed
    stop.set()


def main() -> int:
    """Run the stage in the folder that the command line names."""
    stop = install_signal_handlers()
    threading.Thread(target=_stop_with_parent, args=(stop,), daemon=True).start()
    return execute(Path(sys.argv[1]), stop)


if __name__ == "__main__":
    sys.exit(main())
