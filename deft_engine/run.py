"""Runs one stage in a folder: events out, artifacts written whole or not at all, a manifest last.

The folder of a stage run::

    stage.json              the request (StageRequest)
    events-<attempt>.jsonl  what happens, see deft_engine.events
    work/                   kept between attempts: checkpoints, partial scores
    out/                    the artifacts; appears by one rename when all of them are whole
    manifest.json           written last: the stage has succeeded
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, TypeVar

from deft_engine.base import Spec
from deft_engine.canonical import canonical_json, sha256_file
from deft_engine.durable import fsync
from deft_engine.errors import DeftError, DiskFull, Interrupted, OutOfMemory, StageCrashed
from deft_engine.events import EventWriter
from deft_engine.launch import launch
from deft_engine.matrix_products import in_use
from deft_engine.stages import STAGES
from deft_engine.usage import process_usage
from deft_engine.world import ALONE, World

SpecT = TypeVar("SpecT", bound=Spec)

EXIT_SUCCEEDED = 0
EXIT_FAILED = 1  # an ``error`` event says why
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: stopped on request, work/ holds what was done

_VERSIONED = (
    "deft",
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "bitsandbytes",
    "tokenizers",
    "safetensors",
    "sacrebleu",
    "pyarrow",
    "numpy",
)
_DISK_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_DISK_FULL_TEXT = "No space left on device"  # safetensors raises a class of its own
_NO_MEMORY_TEXT = "DefaultCPUAllocator: can't allocate memory"  # torch on a CPU: a plain RuntimeError


class StageRequest(Spec):
    """``stage.json``: everything a stage's process is told."""

    stage: str
    fingerprint: str
    attempt: int = 1
    spec: dict[str, Any]
    inputs: dict[str, str]
    """Input name -> a local path, ``builtin:<name>`` or ``hub:<id>@<revision>``."""
    input_ids: dict[str, str]
    """Input name -> identity (see ``plan``), for the manifest."""


class StopRequest:
    """Set by SIGTERM and SIGINT; long loops ask it between steps."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self, *_: object) -> None:
        """Ask the stage to stop; also a signal handler."""
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise ``Interrupted`` if asked to stop; call it where all work is saved or worthless."""
        if self._event.is_set():
            raise Interrupted("stopped on request")


@dataclass(frozen=True, slots=True)
class StageContext(Generic[SpecT]):
    """What a stage's function gets. It writes its artifacts into ``out`` and returns a small JSON result."""

    spec: SpecT
    inputs: dict[str, str]
    out: Path
    work: Path
    events: EventWriter
    stop: StopRequest
    world: World = ALONE
    input_ids: Mapping[str, str] = field(default_factory=dict)
    """As in the request."""

    def path(self, name: str) -> Path:
        """The local path of an input that is a file or folder."""
        return Path(self.inputs[name])


def execute(folder: Path, stop: StopRequest) -> int:
    """Run the stage that ``folder/stage.json`` asks for; returns an exit status (EXIT_...)."""
    request = StageRequest.model_validate_json((folder / "stage.json").read_bytes())
    work = folder / "work"
    work.mkdir(exist_ok=True)
    with _only_one(work):
        processes = request.spec.get("processes", 1)
        if processes == 1 and request.spec.get("engine", "single") == "single":
            return _execute_here(folder, request, stop)
        return _execute_on(processes, folder, request, stop)


def _execute_on(processes: int, folder: Path, request: StageRequest, stop: StopRequest) -> int:
    try:
        failure = launch(folder, processes, stop)
    except DeftError as error:
        failure = error.as_dict()
    if failure is not None:
        with EventWriter(folder / f"events-{request.attempt}.jsonl") as events:
            events.error(failure)
        return EXIT_FAILED
    return EXIT_SUCCEEDED if (folder / "manifest.json").exists() else EXIT_INTERRUPTED


def _execute_here(folder: Path, request: StageRequest, stop: StopRequest) -> int:
    with EventWriter(folder / f"events-{request.attempt}.jsonl") as events:
        try:
            run_stage(folder, request, events, stop)
        except Interrupted:
            events.log("stopped on request")
            return EXIT_INTERRUPTED
        except Exception as error:
            known = as_deft_error(error)
            if known is not error:
                traceback.print_exc(file=sys.stderr)
            try:
                events.error(known.as_dict())
            except OSError:  # the disk is full: the last line of stderr carries the error instead
                sys.stderr.write(f"{known}\n")
            return EXIT_FAILED
    return EXIT_SUCCEEDED


def install_signal_handlers() -> StopRequest:
    """SIGTERM and SIGINT ask the stage to stop at the next safe place."""
    stop = StopRequest()
    signal.signal(signal.SIGTERM, stop.set)
    signal.signal(signal.SIGINT, stop.set)
    return stop


def run_stage(
    folder: Path, request: StageRequest, events: EventWriter, stop: StopRequest, world: World = ALONE
) -> None:
    """Run the stage's function; its artifacts and the manifest appear whole or not at all."""
    stage = STAGES[request.stage]
    spec = stage.spec.model_validate(request.spec)
    started = datetime.now(UTC)
    building, out = folder / "out.partial", folder / "out"
    for leftover in (building, out):  # no manifest was written, so neither is whole
        shutil.rmtree(leftover, ignore_errors=True)
    building.mkdir()
    events.log("started")  # importing torch and transformers takes longer than everything before it
    context = StageContext(
        *(spec, request.inputs, building, folder / "work", events, stop, world, request.input_ids)
    )
    work = stage.load()
    _warn_of_emulation(spec, events)
    result = work(context)
    missing = [name for name in stage.outputs if not (building / name).exists()]
    if missing:
        raise RuntimeError(f"stage {stage.name} did not write {', '.join(missing)}")
    manifest = {
        "stage": request.stage,
        "version": stage.version,
        "fingerprint": request.fingerprint,
        "spec": request.spec,
        "inputs": request.input_ids,
        "outputs": _hash_outputs(building),
        "result": result,
        "versions": versions(),
        "matrix_products": in_use(),
        "usage": process_usage(),
        "attempt": request.attempt,
        "started_at": started.isoformat(),
        "finished_at": datetime.now(UTC).isoformat(),
    }
    for written in building.rglob("*"):
        fsync(written)
    building.rename(out)
    partial = folder / "manifest.json.partial"
    with partial.open("wb") as file:
        file.write(canonical_json(manifest))
        file.flush()
        os.fsync(file.fileno())
    partial.rename(folder / "manifest.json")
    fsync(folder)


def _warn_of_emulation(spec: Spec, events: EventWriter) -> None:
    if getattr(spec, "dtype", "auto") != "bfloat16":
        return
    from deft_engine.precision import emulates_bfloat16  # a stage that computes has loaded torch by now

    if emulates_bfloat16():
        events.log(
            "this CPU has no bfloat16 arithmetic and emulates it, which takes many times as long as float32; "
            'set model.dtype to "float32" or "auto"',
            "warning",
        )


def _hash_outputs(folder: Path) -> dict[str, dict[str, Any]]:
    """Every file below ``folder`` by its relative name: SHA-256 and size in bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"sha256": sha256_file(path), "size": path.stat().st_size}
        for path in files
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that a result depends on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def as_deft_error(error: Exception) -> DeftError:
    """Any exception as a member of the tree: what a user can act on, never a traceback."""
    if isinstance(error, DeftError):
        return error
    text = str(error)
    if (isinstance(error, OSError) and error.errno in _DISK_FULL_ERRORS) or _DISK_FULL_TEXT in text:
        return DiskFull(
            f"the disk is full or read-only: {getattr(error, 'strerror', text)}",
            hint="free some space in DEFT's home and send the job again; what is stored is unharmed",
        )
    no_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if no_memory or _NO_MEMORY_TEXT in text:
        return OutOfMemory(f"memory ran out: {text}", hint="lower training.batch_size or training.max_length")
    return _Unexpected(
        f"{type(error).__name__}: {text}", hint="this is a defect; the job's log has the traceback"
    )


class _Unexpected(StageCrashed):
    code = "internal_error"
    retryable = False


@contextmanager
def _only_one(work: Path) -> Iterator[None]:
    """Hold the stage's lock: a process of an earlier attempt that still lives is waited for."""
    with (work / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
