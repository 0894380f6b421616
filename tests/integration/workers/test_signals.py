"""Workers, supervisors and engines that are killed, stopped and paused: promises kept with real signals."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from app.db.models import Attempt
from app.db.session import transaction
from app.metrics import render_metrics
from app.settings import get_settings
from tests.orchestration_world import job, move, run, runs, statuses
from tests.worker_world import (
    descendants_of_workers,
    engine_of,
    finished,
    losses,
    submit,
    trained_step,
    training_job,
    until,
    weights,
    worker,
)

STEPS = 96  # seconds of training: what is to be killed after a few steps must not have ended by then
LONG = 3_999  # steps: never reached, and every one is reported


def attempts(job_id: str) -> list[str]:
    """Statuses of the attempts of a job's training."""
    with transaction() as session:
        found = session.scalars(
            sa.select(Attempt).where(Attempt.stage_run_id == runs(job_id)["train"]).order_by(Attempt.number)
        )
        return [attempt.status.value for attempt in found]


def last_step(job_id: str) -> int:
    return losses(job_id)[-1][0]


def each_step_once(job_id: str) -> bool:
    return [step for step, _ in losses(job_id)] == list(range(1, STEPS + 1))


def test_a_killed_engine_resumes_and_ends_with_the_same_weights_and_metrics(digest: str, log: Path) -> None:
    spec = training_job(digest, steps=STEPS)
    with worker(log):
        disturbed, undisturbed = submit(spec), submit(spec, reuse=False)
        until(lambda: trained_step(disturbed, 7))
        engine_of(runs(disturbed)["train"]).kill()
        assert finished(disturbed) == finished(undisturbed) == "succeeded"
    assert attempts(disturbed) == ["failed", "succeeded"]
    assert attempts(undisturbed) == ["succeeded"]
    assert weights(disturbed) == weights(undisturbed) != {}
    assert losses(disturbed) == losses(undisturbed)
    assert each_step_once(disturbed)


@pytest.mark.slow  # test_supervisor.py has the short form
def test_a_killed_supervisor_takes_its_engine_with_it(digest: str, log: Path) -> None:
    job_id = submit(training_job(digest, steps=LONG))
    with worker(log):
        until(lambda: trained_step(job_id, 3))
        engine = engine_of(runs(job_id)["train"])
        engine.parent().kill()
        until(lambda: not engine.is_running(), patience=10)
        until(lambda: attempts(job_id) == ["failed", "running"])
        move(job_id, "cancel")
        assert finished(job_id) == "cancelled"


def test_a_killed_workers_stage_is_taken_over(digest: str, log: Path) -> None:
    with worker(log), worker(log):
        job_id = submit(training_job(digest, steps=STEPS))
        until(lambda: trained_step(job_id, 7))
        owner = run(job_id, "train").worker
        assert owner is not None
        psutil.Process(int(owner.rpartition(":")[2])).kill()
        assert finished(job_id) == "succeeded"
    assert attempts(job_id) == ["lost", "succeeded"]
    assert each_step_once(job_id)


def test_a_worker_stopped_beyond_its_lease_can_write_nothing_when_it_goes_on(digest: str, log: Path) -> None:
    with worker(log) as stalled:
        job_id = submit(training_job(digest, steps=STEPS))
        until(lambda: trained_step(job_id, 7))
        stalled.send(signal.SIGSTOP)
        until(lambda: not descendants_of_workers(), patience=30)  # the silence has ended its engine
        with worker(log):
            assert finished(job_id) == "succeeded"
            stalled.send(signal.SIGCONT)
            until(lambda: log.read_text().count("lease_lost") == 1)
            until(lambda: b"\ndeft_fenced_writes_total 1.0\n" in render_metrics())
    assert attempts(job_id) == ["lost", "succeeded"]
    assert each_step_once(job_id)
    assert job(job_id).status == "succeeded"


def test_pause_resume_leave_and_cancel(digest: str, log: Path) -> None:
    job_id = submit(training_job(digest, steps=LONG))
    run_id = runs(job_id)["train"]
    with worker(log) as leaving:
        until(lambda: trained_step(job_id, 7))
        move(job_id, "pause")
        until(lambda: job(job_id).status == "paused", patience=20)
        assert descendants_of_workers() == []
        assert any((get_settings().runs_root / run_id / "work").iterdir())
        done = last_step(job_id)
        move(job_id, "resume")
        until(lambda: trained_step(job_id, done + 3))
        assert leaving.stop() == 0
    done = last_step(job_id)
    assert statuses(job_id)["train"] == "ready"
    assert descendants_of_workers() == []
    with worker(log):
        until(lambda: trained_step(job_id, done + 3))
        move(job_id, "cancel")
        asked = time.monotonic()
        assert finished(job_id) == "cancelled"
        assert time.monotonic() - asked < 10
        until(lambda: not (get_settings().runs_root / run_id).exists(), patience=10)
    assert attempts(job_id) == ["interrupted"] * 3
    steps = [step for step, _ in losses(job_id)]
    assert steps == list(range(1, len(steps) + 1))
