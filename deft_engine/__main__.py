"""``python -m deft_engine stage DIR`` runs one stage, ``... run SPEC.yaml --out DIR`` a whole job."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from deft_engine.run import execute, install_signal_handlers


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deft_engine", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    stage = commands.add_parser("stage", help="run the stage that DIR/stage.json asks for")
    stage.add_argument("folder", type=Path)
    job = commands.add_parser("run", help="run a whole job without a service")
    job.add_argument("spec", type=Path, help="the job's spec, YAML or JSON")
    job.add_argument("--out", type=Path, required=True, help="folder for the artifacts; reused if it exists")
    job.add_argument("--json", action="store_true", help="print the result as JSON")
    parsed = parser.parse_args(arguments)
    stop = install_signal_handlers()
    if parsed.command == "stage":
        folder: Path = parsed.folder
        return execute(folder, stop)
    from deft_engine.local import run_job

    try:
        status = run_job(parsed.spec, parsed.out, stop, as_json=parsed.json)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has enough, such as head: end without a word
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor at the interpreter's last flush
        return 128 + signal.SIGPIPE
    return status


if __name__ == "__main__":
    sys.exit(main())
