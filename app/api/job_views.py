"""Jobs as the API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from app.api.schemas import Answer
from app.db.job_stages import ShownStage, current_stage
from app.db.models import Attempt, AttemptStatus, Event, Job, JobStatus, StageStatus


class StageView(Answer):
    """A stage of a job's plan."""

    name: str
    run: str
    status: StageStatus
    fingerprint: str
    """Equal fingerprints are equal work, done once."""
    reused: bool
    """It had succeeded, or was under way, before this job."""
    started_at: datetime | None
    finished_at: datetime | None


class ProgressView(Answer):
    """How far the current stage is."""

    stage: str
    step: int | None
    total: int | None
    eta_s: float | None


class ErrorView(Answer):
    """Why it failed, and what to do."""

    code: str
    message: str
    hint: str = ""
    retryable: bool = False


class JobView(Answer):
    """A job."""

    id: str
    object: Literal["job"] = "job"
    kind: str
    name: str
    status: JobStatus
    spec: dict[str, Any]
    """As resolved: presets and defaults filled in."""
    stage: str | None
    """The stage that runs, failed, or comes next."""
    stages: list[StageView]
    progress: ProgressView | None
    attempt: int
    """Of the current stage."""
    max_attempts: int
    error: ErrorView | None
    result: dict[str, Any] | None
    warnings: list[str]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: dict[str, str]


class AttemptView(Answer):
    """A claim of a stage by a worker."""

    id: str
    """Its run and number."""
    stage: str
    run: str
    number: int
    worker: str
    status: AttemptStatus
    exit_code: int | None
    error: ErrorView | None
    log: str | None
    """The last part of the process's output."""
    started_at: datetime
    finished_at: datetime | None


class EventView(Answer):
    """What happened in a job; ``seq`` counts 1, 2, ... without gaps."""

    seq: int
    type: str
    time: datetime
    data: dict[str, Any]


class LogLine(Answer):
    """A line that a stage wrote for people."""

    seq: int
    time: datetime
    stage: str | None
    level: str
    message: str


_LINKED = ("events", "metrics", "artifacts", "logs", "attempts", "dashboard")


def view_job(job: Job, stages: Sequence[ShownStage]) -> JobView:
    """A job and its stages."""
    current = current_stage(stages)
    return JobView(
        id=job.id,
        kind=job.kind,
        name=job.name,
        status=job.status,
        spec=job.spec,
        stage=current.stage if current else None,
        stages=[_view_stage(stage) for stage in stages],
        progress=_view_progress(current),
        attempt=current.attempt if current else 0,
        max_attempts=current.max_attempts if current else 0,
        error=ErrorView.model_validate(job.error) if job.error else None,
        result=job.result,
        warnings=[str(warning) for warning in job.warnings],
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        links={"self": f"/jobs/{job.id}", **{name: f"/jobs/{job.id}/{name}" for name in _LINKED}},
    )


def view_attempt(attempt: Attempt, stage: str) -> AttemptView:
    """A claim of a stage of this name."""
    return AttemptView(
        id=f"{attempt.stage_run_id}/{attempt.number}",
        stage=stage,
        run=attempt.stage_run_id,
        number=attempt.number,
        worker=attempt.worker,
        status=attempt.status,
        exit_code=attempt.exit_code,
        error=ErrorView.model_validate(attempt.error) if attempt.error else None,
        log=attempt.log,
        started_at=attempt.started_at,
        finished_at=attempt.finished_at,
    )


def view_log(event: Event) -> LogLine:
    """A ``log`` or ``error`` event as a line."""
    return LogLine(
        seq=event.seq,
        time=event.time,
        stage=event.data.get("stage"),
        level="error" if event.type == "error" else str(event.data.get("level", "info")),
        message=str(event.data.get("message", "")),
    )


def _view_stage(stage: ShownStage) -> StageView:
    return StageView(
        name=stage.stage,
        run=stage.run_id,
        status=stage.status,
        fingerprint=stage.fingerprint,
        reused=stage.reused,
        started_at=stage.started_at,
        finished_at=stage.finished_at,
    )


def _view_progress(stage: ShownStage | None) -> ProgressView | None:
    if stage is None or stage.progress is None:
        return None
    known = {name: stage.progress.get(name) for name in ("step", "total", "eta_s")}
    return ProgressView(stage=stage.stage, **known)
