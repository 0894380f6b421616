import errno
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deft_engine.base import Spec
from deft_engine.errors import DataError, StageCrashed
from deft_engine.events import read_events
from deft_engine.run import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_SUCCEEDED,
    StageContext,
    StageRequest,
    StopRequest,
    execute,
    install_signal_handlers,
)
from deft_engine.stages import STAGES

Function = Callable[[StageContext[Any]], dict[str, Any]]


class FakeSpec(Spec):
    number: int = 1
    dtype: str = "auto"


def _folder(tmp_path: Path, attempt: int = 1, **spec: Any) -> Path:
    folder = tmp_path / "stage"
    folder.mkdir(exist_ok=True)
    request = StageRequest(
        stage="fake",
        fingerprint="abc",
        attempt=attempt,
        spec=spec,
        inputs={"samples": "/somewhere"},
        input_ids={"samples": "the identity"},
    )
    (folder / "stage.json").write_text(request.model_dump_json())
    return folder


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Callable[[Function], None]:
    """Makes a function the stage ``fake``, which has the outputs ``data`` and ``model``."""

    def put(function: Function) -> None:
        row = SimpleNamespace(
            name="fake", spec=FakeSpec, outputs=("data", "model"), version=3, load=lambda: function
        )
        monkeypatch.setitem(STAGES, "fake", row)  # type: ignore[arg-type]

    return put


def _write(context: StageContext[Any]) -> dict[str, Any]:
    (context.out / "data").write_text(f"number {context.spec.number}")
    (context.out / "model").mkdir()
    (context.out / "model" / "weights").write_bytes(b"12345")
    return {"written": 2}


def _events(folder: Path, attempt: int = 1) -> list[dict[str, Any]]:
    """What an attempt reported after its first word."""
    begun, *others = [event for _, event in read_events(folder / f"events-{attempt}.jsonl", 0)]
    assert (begun["type"], begun["message"]) == ("log", "started")
    return others


@pytest.mark.parametrize(
    ("capability", "dtype", "warned"),
    [
        ("AVX2", "bfloat16", True),
        ("AVX2", "float32", False),
        ("AVX2", "auto", False),
        ("AVX512", "bfloat16", False),
    ],
)
def test_bfloat16_on_a_cpu_that_emulates_it_is_warned_of(
    tmp_path: Path,
    stage: Callable[[Function], None],
    monkeypatch: pytest.MonkeyPatch,
    capability: str,
    dtype: str,
    warned: bool,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    stage(_write)

    assert execute(_folder(tmp_path, dtype=dtype), StopRequest()) == EXIT_SUCCEEDED

    said = [event["message"] for event in _events(tmp_path / "stage") if event.get("level") == "warning"]
    assert ["float32" in message for message in said] == [True] * warned


def test_a_stage_that_succeeds_leaves_its_artifacts_and_a_manifest(
    tmp_path: Path, stage: Callable[[Function], None]
) -> None:
    stage(_write)
    folder = _folder(tmp_path, number=7)
    assert execute(folder, StopRequest()) == EXIT_SUCCEEDED
    assert (folder / "out" / "data").read_text() == "number 7"
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert manifest["outputs"] == {
        "data": {"sha256": hashlib.sha256(b"number 7").hexdigest(), "size": 8},
        "model/weights": {"sha256": hashlib.sha256(b"12345").hexdigest(), "size": 5},
    }
    assert {name: manifest[name] for name in ("stage", "version", "fingerprint", "attempt", "result")} == {
        "stage": "fake", "version": 3, "fingerprint": "abc", "attempt": 1, "result": {"written": 2},
    }  # fmt: skip
    assert manifest["spec"] == {"number": 7}
    assert manifest["inputs"] == {"samples": "the identity"}
    assert {"python", "numpy", "deft"} <= manifest["versions"].keys()
    assert manifest["usage"]["cpu_seconds"] > 0
    assert 2**20 < manifest["usage"]["peak_memory_bytes"] < 2**42
    assert manifest["started_at"] <= manifest["finished_at"]
    assert not list(folder.glob("*.partial"))


def test_a_stage_sees_its_spec_its_inputs_and_its_folders(
    tmp_path: Path, stage: Callable[[Function], None]
) -> None:
    seen: list[StageContext[Any]] = []

    def look(context: StageContext[Any]) -> dict[str, Any]:
        seen.append(context)
        context.events.progress(1, 2)
        return _write(context)

    stage(look)
    folder = _folder(tmp_path)
    execute(folder, StopRequest())
    (context,) = seen
    assert context.spec == FakeSpec()
    assert context.path("samples") == Path("/somewhere")
    assert context.work == folder / "work"
    assert [event["type"] for event in _events(folder)] == ["progress"]


def test_an_artifact_that_is_missing_is_a_defect(tmp_path: Path, stage: Callable[[Function], None]) -> None:
    def forget(context: StageContext[Any]) -> dict[str, Any]:
        (context.out / "data").touch()
        return {}

    stage(forget)
    folder = _folder(tmp_path)
    assert execute(folder, StopRequest()) == EXIT_FAILED
    (event,) = _events(folder)
    assert (event["code"], event["retryable"]) == ("internal_error", False)
    assert "did not write model" in event["message"]
    assert not (folder / "out").exists()
    assert not (folder / "manifest.json").exists()


@pytest.mark.parametrize(
    ("error", "code", "retryable", "traced"),
    [
        (DataError("line 41: no prompt", hint="give one"), "invalid_data", False, False),
        (DataError("line 41", code="too_long"), "too_long", False, False),
        (StageCrashed("gone"), "stage_crashed", True, False),
        (ValueError("odd"), "internal_error", False, True),
        (MemoryError("8 GB"), "out_of_memory", False, True),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full", False, True),
        (OSError(errno.EROFS, "Read-only file system"), "disk_full", False, True),
    ],
)
def test_every_failure_is_one_error_event(
    error: Exception,
    code: str,
    retryable: bool,
    traced: bool,
    tmp_path: Path,
    stage: Callable[[Function], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(context: StageContext[Any]) -> dict[str, Any]:
        raise error

    stage(fail)
    folder = _folder(tmp_path)
    assert execute(folder, StopRequest()) == EXIT_FAILED
    (event,) = _events(folder)
    assert (event["type"], event["code"], event["retryable"]) == ("error", code, retryable)
    assert str(error.args[-1]) in event["message"]
    assert ("Traceback" in capsys.readouterr().err) == traced


def test_an_interrupted_stage_keeps_its_work_and_goes_on(
    tmp_path: Path, stage: Callable[[Function], None]
) -> None:
    stop = StopRequest()

    def work(context: StageContext[Any]) -> dict[str, Any]:
        done = context.work / "done"
        if not done.exists():
            done.write_text("half")
            (context.out / "data").write_text("half an artifact")
            stop.set()
        context.stop.check()
        assert not (context.out / "data").exists()
        return _write(context)

    stage(work)
    folder = _folder(tmp_path)
    assert execute(folder, stop) == EXIT_INTERRUPTED
    (event,) = _events(folder)
    assert (event["type"], event["message"]) == ("log", "stopped on request")
    assert not (folder / "out").exists()
    folder = _folder(tmp_path, attempt=2)
    assert execute(folder, StopRequest()) == EXIT_SUCCEEDED
    assert json.loads((folder / "manifest.json").read_bytes())["attempt"] == 2
    assert _events(folder, 2) == []


def test_artifacts_without_a_manifest_are_made_again(
    tmp_path: Path, stage: Callable[[Function], None]
) -> None:
    stage(_write)
    folder = _folder(tmp_path)
    for name in ("out", "out.partial"):
        (folder / name).mkdir()
        (folder / name / "leftover").write_text("of a killed process")
    assert execute(folder, StopRequest()) == EXIT_SUCCEEDED
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["data", "model"]


def test_a_process_of_an_earlier_attempt_is_waited_for(
    tmp_path: Path, stage: Callable[[Function], None]
) -> None:
    stage(_write)
    folder = _folder(tmp_path)
    (folder / "work").mkdir()
    with (folder / "work" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = threading.Event()
        second = threading.Thread(target=lambda: (execute(folder, StopRequest()), ended.set()))
        second.start()
        assert not ended.wait(0.3)
        assert not (folder / "manifest.json").exists()
    assert ended.wait(10)
    second.join()
    assert (folder / "manifest.json").exists()


def test_sigterm_asks_to_stop() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop = install_signal_handlers()
        assert not stop
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command, so no small disk to fill")
    if mounted.returncode != 0:
        pytest.skip(f"a small disk needs the right to mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_harms_nothing(
    small_disk: Path, stage: Callable[[Function], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fill(context: StageContext[Any]) -> dict[str, Any]:
        (context.out / "data").write_bytes(b"x" * 1_000_000)
        return {}

    folder = _folder(small_disk)
    (small_disk / "stored").write_text("unharmed")
    stage(fill)
    assert execute(folder, StopRequest()) == EXIT_FAILED
    assert "the disk is full" in capsys.readouterr().err + json.dumps(_events(folder))
    assert (small_disk / "stored").read_text() == "unharmed"
    assert not (folder / "manifest.json").exists()
    stage(_write)
    folder = _folder(small_disk, attempt=2)
    assert execute(folder, StopRequest()) == EXIT_SUCCEEDED  # what half an artifact took is free again
