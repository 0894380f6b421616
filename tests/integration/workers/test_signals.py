"""Workers, supervisors and engines that are killed, stopped and paused: promises kept with real signals."""

from __future__ import annotations

from pathlib import Path

import psutil
from orchestration_world import runs
from sqlalchemy import select
from worker_world import (
    Worker,
    descendants_of_workers,
    finished,
    losses,
    submit,
    trained_step,
    training_job,
    until,
    weights,
    worker,
)

from app.db.models import Attempt
from app.db.session import transaction

STEPS = 24


def attempts(run_id: str) -> list[str]:
    with transaction() as session:
        found = session.scalars(
            select(Attempt).where(Attempt.stage_run_id == run_id).order_by(Attempt.number)
        )
        return [attempt.status.value for attempt in found]


def in_training(job_id: str, running: Worker, step: int = 7) -> psutil.Process:
    """The engine, once it has trained some steps."""
    until(lambda: trained_step(job_id, step))
    return running.engine()


def test_a_killed_engine_resumes_and_ends_with_the_same_weights_and_metrics(digest: str, log: Path) -> None:
    spec = training_job(digest, steps=STEPS)
    with worker(log) as running:
        undisturbed = submit(spec)
        assert finished(undisturbed) == "succeeded"
        disturbed = submit(spec, reuse=False)
        in_training(disturbed, running).kill()
        assert finished(disturbed) == "succeeded"
    assert attempts(runs(disturbed)["train"]) == ["failed", "succeeded"]
    assert weights(disturbed) == weights(undisturbed) != {}
    assert losses(disturbed) == losses(undisturbed)
    assert [step for step, _ in losses(disturbed)] == list(range(1, STEPS + 1))


def test_a_killed_workers_stage_is_taken_over(digest: str, log: Path) -> None:
    with worker(log) as first:
        job_id = submit(training_job(digest, steps=STEPS))
        in_training(job_id, first)
        first.kill()
        until(lambda: not descendants_of_workers(), patience=20)
        with worker(log):
            assert finished(job_id) == "succeeded"
    assert attempts(runs(job_id)["train"]) == ["lost", "succeeded"]
    assert [step for step, _ in losses(job_id)] == list(range(1, STEPS + 1))
