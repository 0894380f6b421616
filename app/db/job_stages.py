"""The stages of jobs as answers show them: without the runs' JSON, in one query for any number of jobs.

A list shows a hundred of them and more, where objects of the ORM would take most of the request's time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.models import JobStage, Json, StageRun, StageStatus


class ShownStage(NamedTuple):
    """A stage run in its place in a job's plan."""

    job_id: str
    reused: bool
    run_id: str
    stage: str
    status: StageStatus
    fingerprint: str
    attempt: int
    max_attempts: int
    progress: Json | None
    started_at: datetime | None
    finished_at: datetime | None


class _HasStatus(Protocol):
    @property
    def status(self) -> StageStatus: ...


Staged = TypeVar("Staged", bound=_HasStatus)

_QUERY = sa.select(
    JobStage.job_id,
    JobStage.reused,
    StageRun.id,
    StageRun.stage,
    StageRun.status,
    StageRun.fingerprint,
    StageRun.attempt,
    StageRun.max_attempts,
    StageRun.progress,
    StageRun.started_at,
    StageRun.finished_at,
).join(StageRun, StageRun.id == JobStage.stage_run_id)
_FIRST_SHOWN = (
    StageStatus.RUNNING,
    StageStatus.FAILED,
    StageStatus.READY,
    StageStatus.PAUSED,
    StageStatus.WAITING,
)


def stages_of_jobs(session: Session, job_ids: Collection[str]) -> dict[str, list[ShownStage]]:
    """Job -> its stages in the order of its plan; a job that there is not has none."""
    found: dict[str, list[ShownStage]] = defaultdict(list)
    query = _QUERY.where(JobStage.job_id.in_(job_ids)).order_by(JobStage.job_id, JobStage.position)
    for row in session.execute(query):
        stage = ShownStage(*row)
        found[stage.job_id].append(stage)
    return found


def current_stage(stages: Sequence[Staged]) -> Staged | None:
    """The stage that a job is at: one that runs, failed or is next, else the last of the plan."""
    for status in _FIRST_SHOWN:
        for stage in stages:
            if stage.status is status:
                return stage
    return stages[-1] if stages else None
