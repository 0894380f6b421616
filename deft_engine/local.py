"""``deft run SPEC.yaml --out DIR``: a job's plan carried out in a folder; no service, database or broker.

::

    DIR/stages/<stage>-<fingerprint>/   a folder per stage (see deft_engine.run); one that is done is reused
    DIR/scores.parquet, model/, ...     links to the job's artifacts there
    DIR/manifest.json                   the resolved spec, and each stage's manifest
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deft_engine import stage_process
from deft_engine.canonical import canonical_json, sha256_file
from deft_engine.endpoints.hosts import EVERYTHING, AllowedHosts
from deft_engine.endpoints.spec import EndpointSpec
from deft_engine.errors import DeftError, Interrupted, ResourceError, SpecError, StageCrashed
from deft_engine.events import read_events
from deft_engine.local_artifacts import local_inputs, publish, stage_folder
from deft_engine.local_report import JsonReport, Report, TextReport, error_object
from deft_engine.model_names import resolve_endpoint, resolve_model
from deft_engine.plan import DatasetRef, External, Made, Plan, PlannedStage
from deft_engine.planning import plan_job
from deft_engine.run import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_SUCCEEDED, StageRequest, StopRequest
from deft_engine.spec_file import read_job
from deft_engine.stages import ImportSpec
from deft_engine.terminal import Display, open_display

_POLL = 0.1  # seconds between looks at a stage's events


class LocalResolver:
    """Names in a local spec: a dataset is a file's path, a model what ``resolve_model`` knows."""

    def dataset(self, name: str, pointer: str) -> DatasetRef:
        return DatasetRef(_file("dataset", name, pointer, "a file of preference data"), ImportSpec())

    def file(self, name: str, pointer: str) -> External:
        return _file("file", name, pointer, "a file in FastChat's format")

    def generations(self, name: str, samples: Made, pointer: str) -> External:
        return _file("generations", name, pointer, "a file of answers")

    def model(self, name: str, revision: str | None, pointer: str) -> External:
        return resolve_model(name, revision, pointer, roots=None)

    def endpoint(self, spec: EndpointSpec, pointer: str) -> External:
        return resolve_endpoint(spec, pointer, AllowedHosts.from_environment(EVERYTHING))


def _file(what: str, name: str, pointer: str, expected: str) -> External:
    path = Path(name).absolute()
    if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
        raise SpecError(
            f"{what} {name!r}: there is no such file",
            hint=f"name {expected} (JSON, JSONL or Parquet, plain or .gz); "
            "a relative path starts at the current folder",
            pointer=pointer,
        )
    return External(f"path:{path}", sha256_file(path))


class StageFailed(Exception):
    """A stage ended with an error: an error object with its ``stage`` and ``log``."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.error = error


def run_job(spec_path: Path, out: Path, stop: StopRequest, as_json: bool) -> int:
    """Carry out the job that a YAML or JSON file describes; returns an exit status (``run.EXIT_...``).

    What an earlier run in ``out`` finished is reused, also after an interruption. Progress goes to standard
    error, the results to standard output, with ``as_json`` as one JSON object.
    """
    report: Report = JsonReport() if as_json else TextReport()
    try:
        job = read_job(spec_path)
        plan = plan_job(job, LocalResolver())
        with _alone(out):
            _carry_out(plan, out, stop)
            manifest = publish(job, plan, out)
    except Interrupted:
        report.interrupted(out)
        return EXIT_INTERRUPTED
    except StageFailed as failed:
        report.failed(failed.error)
        return EXIT_FAILED
    except DeftError as error:
        report.failed(error_object(error))
        return EXIT_FAILED
    except OSError as error:
        known = ResourceError(
            f"{error.filename or out}: {error.strerror}", hint="free it, or name another --out"
        )
        report.failed(known.as_dict())
        return EXIT_FAILED
    report.succeeded(out, manifest)
    return EXIT_SUCCEEDED


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder against a second run in it."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DeftError(
                f"another deft run is at work in {out}",
                hint="wait for it, or name another folder with --out",
                code="folder_in_use",
            ) from error
        yield


def _carry_out(plan: Plan, out: Path, stop: StopRequest) -> None:
    display = open_display()
    try:
        for number, planned in enumerate(plan.stages, start=1):
            stop.check()
            folder = stage_folder(out, planned.stage, planned.fingerprint)
            reused = (folder / "manifest.json").exists()
            display.stage(number, len(plan.stages), planned.stage, reused=reused)
            if not reused:
                attempt = _ask(planned, local_inputs(planned, plan, out), folder)
                _run_stage(planned.stage, folder, attempt, stop, display)
    finally:
        display.close()


def _ask(planned: PlannedStage, inputs: dict[str, str], folder: Path) -> int:
    """Write ``stage.json``; returns the number of the attempt."""
    folder.mkdir(parents=True, exist_ok=True)
    attempt = 1 + len(list(folder.glob("events-*.jsonl")))
    request = StageRequest(
        stage=planned.stage,
        fingerprint=planned.fingerprint,
        attempt=attempt,
        spec=planned.spec,
        inputs=inputs,
        input_ids={name: source.identity for name, source in planned.inputs.items()},
    )
    (folder / "stage.json").write_bytes(canonical_json(request.model_dump(mode="json")))
    return attempt


def _run_stage(stage: str, folder: Path, attempt: int, stop: StopRequest, display: Display) -> None:
    """Run a stage in a process of its own, whose memory comes back.

    Raises:
        Interrupted: it was asked to stop, and did.
        StageFailed: it ended with an error.
    """
    started = time.monotonic()
    with stage_process.start(folder) as process:
        error = _follow(process, folder / f"events-{attempt}.jsonl", stop, display)
    seconds = time.monotonic() - started
    if process.returncode == EXIT_SUCCEEDED:
        display.finish("succeeded", seconds)
        return
    if process.returncode == EXIT_INTERRUPTED or (stop and process.returncode == -signal.SIGTERM):
        display.finish("stopped", seconds)
        raise Interrupted("stopped on request")
    display.finish("failed", seconds)
    known = error or _crash(process.returncode, folder).as_dict()
    raise StageFailed({**known, "stage": stage, "log": str(folder / stage_process.LOG)})


def _follow(
    process: subprocess.Popen[bytes], path: Path, stop: StopRequest, display: Display
) -> dict[str, Any] | None:
    """Show a stage's events until its process has ended; returns its ``error`` event, if there was one."""
    offset, error, asked = 0, None, False
    while True:
        ended = process.poll() is not None  # asked before reading, so that no event is missed
        if path.exists():
            for behind, event in read_events(path, offset):
                offset = behind
                display.event(event)
                if event["type"] == "error":
                    error = {key: event[key] for key in ("code", "message", "hint", "retryable")}
        if ended:
            return error
        if stop and not asked:
            process.send_signal(signal.SIGTERM)
            asked = True
        try:
            process.wait(_POLL)
        except subprocess.TimeoutExpired:
            continue


def _crash(status: int, folder: Path) -> StageCrashed:
    how = f"by signal {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    said = (folder / stage_process.LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return StageCrashed(
        f"its process ended {how}" + (f": {said[-1]}" if said else ""),
        hint="the same command goes on where it ended; where memory is short, lower training.batch_size",
    )
