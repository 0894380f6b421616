"""``python -m deft_engine.rank_process DIR``, started by torchrun: one of the processes of a stage.

The first one writes the stage's events, artifacts and manifest. The others do the same work, but what they
would write goes into a folder of their own, which is removed.
"""

from __future__ import annotations

import shutil
import signal
import sys
import traceback
from pathlib import Path

from deft_engine.errors import Interrupted
from deft_engine.events import EventWriter
from deft_engine.launch import report_failure, stop_asked
from deft_engine.orphans import end_this_with_parent
from deft_engine.run import (
    EXIT_FAILED,
    EXIT_SUCCEEDED,
    StageContext,
    StageRequest,
    StopRequest,
    as_deft_error,
    run_stage,
)
from deft_engine.stages import STAGES, DividedSpec
from deft_engine.world import World, join_world, lost_a_process


class FileStop(StopRequest):
    """Asked for by a file, and seen by each process when it looks."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def check(self) -> None:
        if self:
            raise Interrupted("stopped on request")

    def __bool__(self) -> bool:
        return stop_asked(self._folder)


class AgreedStop(FileStop):
    """Seen by all processes at once, which must look at it at the same places."""

    def __init__(self, folder: Path, world: World) -> None:
        super().__init__(folder)
        self._world = world

    def __bool__(self) -> bool:
        return self._world.any(super().__bool__())


def main() -> int:
    """Take part in the stage whose folder the command line names; an exit status."""
    end_this_with_parent(signal.SIGKILL)
    folder = Path(sys.argv[1])
    try:
        _take_part(folder, join_world())
    except Interrupted:
        return EXIT_SUCCEEDED
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        if not lost_a_process(error):
            report_failure(folder, as_deft_error(error))
        return EXIT_FAILED
    return EXIT_SUCCEEDED


def _take_part(folder: Path, world: World) -> None:
    request = StageRequest.model_validate_json((folder / "stage.json").read_bytes())
    stage = STAGES[request.stage]
    alone = issubclass(stage.spec, DividedSpec)  # until all have done their part
    stop = FileStop(folder) if alone else AgreedStop(folder, world)
    if world.first:
        with EventWriter(folder / f"events-{request.attempt}.jsonl") as events:
            try:
                run_stage(folder, request, events, stop, world)
            except Interrupted:
                events.log("stopped on request")
                raise
        return
    scratch = folder / "work" / f"rank-{world.rank}"
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "out").mkdir(parents=True)
    try:
        with EventWriter(scratch / "events.jsonl") as events:
            spec = stage.spec.model_validate(request.spec)
            stage.load()(
                StageContext(
                    spec,
                    request.inputs,
                    scratch / "out",
                    folder / "work",
                    events,
                    stop,
                    world,
                    request.input_ids,
                )
            )
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    sys.exit(main())
