"""What the task makes of an engine's end; the engine is one that ends as it is told."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from app.db.models import Artifact, Attempt, StageRun, StageStatus
from app.db.session import transaction
from app.metrics import render_metrics
from app.settings import get_settings
from app.store import get_store
from deft_engine.canonical import sha256_hex
from deft_engine.errors import NothingUsable
from deft_engine.events import EventWriter
from deft_engine.store import LocalStore
from tests.orchestration_world import DEFECT, align, events, job, move, run, runs, statuses, submit
from tests.worker_world import until
from workers import run_stage
from workers.run_folder import RunFolder

Play = Callable[..., None]


class Script:
    """How an engine behaves: what it does in its folder, and its status, or None until it is told to stop."""

    def __init__(self, status: int | None, act: Callable[[Path], None] = lambda folder: None) -> None:
        self.status = status
        self.act = act
        self.stops: list[float] = []


class ScriptedEngine:
    """Stands for ``SupervisedEngine``."""

    def __init__(self, script: Script, folder: Path, log: Path) -> None:
        self._script = script
        log.write_text("last words")
        script.act(folder)

    def wait(self, timeout: float) -> int | None:
        return 75 if self._script.stops else self._script.status

    def beat(self) -> None: ...

    def stop(self, grace: float) -> None:
        self._script.stops.append(grace)


@pytest.fixture
def job_id(tmp_path: Path) -> str:
    """A job whose upload is in the store."""
    upload = tmp_path / "upload"
    upload.write_text("ds_one")  # the made-up digest of this dataset is that of its name
    get_store().put(upload)
    return submit(align(deft=None))


@pytest.fixture
def play(job_id: str, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Runs the job's import with a scripted engine."""

    def play(script: Script) -> None:
        monkeypatch.setattr(
            run_stage,
            "SupervisedEngine",
            lambda folder, log, *, silence, grace, environment: ScriptedEngine(script, folder, log),
        )
        run_stage.run_stage(runs(job_id)["import"])

    return play


@pytest.fixture(autouse=True)
def stay() -> Iterator[None]:
    yield
    run_stage.shutting_down.clear()


def last_attempt(job_id: str) -> Attempt:
    with transaction() as session:
        return session.scalars(
            sa.select(Attempt)
            .where(Attempt.stage_run_id == runs(job_id)["import"])
            .order_by(Attempt.number.desc())
        ).first() or pytest.fail("no attempt")


def succeed_in(folder: Path) -> None:
    """Leave what an engine leaves that has succeeded."""
    (folder / "out").mkdir()
    (folder / "out" / "samples.parquet").write_bytes(b"rows")
    outputs = {"samples.parquet": {"sha256": sha256_hex(b"rows"), "size": 4}}
    (folder / "manifest.json").write_text(json.dumps({"outputs": outputs, "result": {"rows": 1}}))


def report(kind: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        with EventWriter(folder / "events-1.jsonl") as written:
            if kind == "error":
                written.error(DEFECT)
            else:
                written.log("half way")

    return act


def test_success_stores_the_outputs(play: Play, job_id: str) -> None:
    play(Script(0, succeed_in))
    assert run(job_id, "import").result == {"rows": 1}
    assert statuses(job_id) == {"import": "succeeded", "train": "ready"}
    with transaction() as session:
        artifact = session.scalars(sa.select(Artifact)).one()
    assert (artifact.name, get_store().get(artifact.sha256).read_bytes()) == ("samples.parquet", b"rows")
    assert (last_attempt(job_id).status, last_attempt(job_id).exit_code) == ("succeeded", 0)


def test_a_reported_error_is_the_stages(play: Play, job_id: str) -> None:
    play(Script(1, report("error")))
    assert run(job_id, "import").error == DEFECT
    assert job(job_id).status == "failed"
    assert (last_attempt(job_id).exit_code, last_attempt(job_id).log) == (1, "last words")
    assert [event.data for event in events(job_id) if event.type == "error"] == [
        {"stage": "import", **DEFECT}
    ]


def test_an_upload_with_nothing_usable_keeps_its_ledger(play: Play, job_id: str) -> None:
    told = NothingUsable("line 1: ...", hint="", code="wrong_type", summary={"rows": 1}).as_dict()

    def act(folder: Path) -> None:
        (folder / "out.partial").mkdir()
        (folder / "out.partial" / "ledger.jsonl").write_bytes(b"every row")
        (folder / "out.partial" / "samples.parquet").write_bytes(b"none")
        with EventWriter(folder / "events-1.jsonl") as written:
            written.error(told)

    play(Script(1, act))
    assert run(job_id, "import").error == told
    with transaction() as session:
        artifact = session.scalars(sa.select(Artifact)).one()
    assert (artifact.name, get_store().get(artifact.sha256).read_bytes()) == ("ledger.jsonl", b"every row")


@pytest.mark.parametrize("status", [1, 137, 139])
def test_silence_is_a_crash_that_is_tried_again(play: Play, job_id: str, status: int) -> None:
    play(Script(status, report("log")))
    assert statuses(job_id)["import"] == "ready"
    ended = last_attempt(job_id)
    assert (ended.status, ended.exit_code) == ("failed", status)
    assert ended.error is not None
    assert (ended.error["code"], ended.error["retryable"]) == ("stage_crashed", True)


def test_silence_on_a_full_disk_is_not_tried_again(
    play: Play, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: RunFolder) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunFolder, "probe", full)
    play(Script(1))
    error = job(job_id).error
    assert error is not None
    assert (error["code"], error["retryable"]) == ("disk_full", False)


class SlowStore(LocalStore):
    """A store that takes longer than a lease, as one on another file system does for a large model."""

    def put(self, path: Path, sha256: str | None = None) -> str:
        first = run_claimed().lease_until
        assert first is not None
        until(lambda: (run_claimed().lease_until or first) > first, patience=30)
        return super().put(path, sha256)


def run_claimed() -> StageRun:
    """The stage run that is under way."""
    with transaction() as session:
        return session.scalars(sa.select(StageRun).where(StageRun.status == StageStatus.RUNNING)).one()


def test_a_lease_is_renewed_while_outputs_are_stored(
    play: Play, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_stage, "get_store", lambda: SlowStore(get_settings().store_root))
    play(Script(0, succeed_in))
    assert (run(job_id, "import").attempt, statuses(job_id)["import"]) == (1, "succeeded")


class FullStore(LocalStore):
    """A store on a full disk."""

    def put(self, path: Path, sha256: str | None = None) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", str(path), None, "/artifacts/ab")


def test_a_full_store_is_one_line_with_the_place_and_what_to_do(
    play: Play, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(folder: Path) -> None:
        succeed_in(folder)
        report("log")(folder)

    monkeypatch.setattr(run_stage, "get_store", lambda: FullStore(get_settings().store_root))
    with capture_logs() as lines:
        play(Script(0, act))
    assert "half way" in [event.data.get("message") for event in events(job_id)]
    (line,) = (line for line in lines if line["event"] == "attempt_failed")
    assert "exc_info" not in line
    assert (line["log_level"], line["where"]) == ("error", "/artifacts/ab")
    assert "No space left on device" in line["error"]
    assert "free some space" in line["hint"]
    assert (last_attempt(job_id).error or {})["code"] == "disk_full"


def test_a_defect_leaves_its_traceback(play: Play, job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(RunFolder, "store_outputs", broken)
    with capture_logs() as lines:
        play(Script(0, succeed_in))
    (line,) = (line for line in lines if line["event"] == "attempt_failed")
    assert line["exc_info"]


def test_an_engine_that_somebody_interrupted_is_started_again(play: Play, job_id: str) -> None:
    play(Script(75))
    assert statuses(job_id)["import"] == "ready"
    assert last_attempt(job_id).status == "interrupted"


def test_work_that_an_attempt_finished_but_could_not_store_is_not_done_again(play: Play, job_id: str) -> None:
    folder = get_settings().runs_root / runs(job_id)["import"]
    folder.mkdir(parents=True)
    succeed_in(folder)
    play(Script(1, lambda _: pytest.fail("the engine was started")))
    assert statuses(job_id)["import"] == "succeeded"
    assert last_attempt(job_id).exit_code is None


def test_cancel_gives_the_engine_a_short_grace(play: Play, job_id: str) -> None:
    script = Script(None, lambda _: move(job_id, "cancel"))
    play(script)
    assert script.stops == [3.0]
    assert job(job_id).status == "cancelled"


def test_pause_gives_the_engine_time_for_a_checkpoint(play: Play, job_id: str) -> None:
    script = Script(None, lambda _: move(job_id, "pause"))
    play(script)
    assert script.stops == [get_settings().stop_grace_seconds]
    assert job(job_id).status == "paused"


def test_a_worker_that_leaves_hands_its_stage_back(play: Play, job_id: str) -> None:
    script = Script(None, lambda _: run_stage.shutting_down.set())
    play(script)
    assert script.stops == [get_settings().stop_grace_seconds]
    assert statuses(job_id)["import"] == "ready"
    assert last_attempt(job_id).status == "interrupted"


def test_a_worker_that_leaves_claims_nothing(play: Play, job_id: str) -> None:
    run_stage.shutting_down.set()
    play(Script(0))
    assert run(job_id, "import").attempt == 0


def test_a_lost_lease_stops_the_engine_and_writes_nothing(play: Play, job_id: str) -> None:
    def take_away(folder: Path) -> None:
        with transaction() as session:
            session.execute(sa.text("UPDATE stage_runs SET attempt = attempt + 1 WHERE status = 'running'"))

    script = Script(None, take_away)
    play(script)
    assert script.stops == [3.0]
    assert statuses(job_id)["import"] == "running"
    assert last_attempt(job_id).status == "running"
    assert b"\ndeft_fenced_writes_total 1.0\n" in render_metrics()
