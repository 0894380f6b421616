"""A job's events: numbered 1, 2, ... without gaps, in the order of commit.

=============  ==================================================
type           data
=============  ==================================================
job.status     status
stage.status   stage, run, status, attempt (once it has started)
progress       stage, step, total, eta_s
metrics        stage, step, values
log            stage, level, message
error          stage, code, message, hint, retryable
=============  ==================================================
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from app.db.locks import database_time
from app.db.models import TERMINAL_JOBS, Event, Job, JobStage, Json, StageRun

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that has no number yet; the last three fields tell an engine's event from all others."""

    type: str
    data: Json
    time: datetime
    stage_run_id: str | None = None
    attempt: int | None = None
    source_seq: int | None = None


def append_event(session: Session, job_id: str, type: str, data: Json) -> None:
    """Add one event to one job."""
    append_events(session, [job_id], [NewEvent(type, data, database_time(session))])


def append_events(session: Session, job_ids: Sequence[str], events: Sequence[NewEvent]) -> None:
    """Add events to each of some jobs; their rows are locked in the order of their ids, until commit."""
    if not job_ids or not events:
        return
    locked = (
        select(Job.id)
        .where(Job.id.in_(job_ids))
        .order_by(Job.id)
        .with_for_update(key_share=True)
        .cte("locked")
    )
    numbered = session.execute(
        update(Job)
        .where(Job.id == locked.c.id)
        .values(event_seq=Job.event_seq + len(events))
        .returning(Job.id, Job.event_seq)
        .execution_options(synchronize_session=False)
    )
    rows = [
        {
            "job_id": job_id,
            "seq": last - len(events) + position,
            "type": event.type,
            "data": storable(event.data),
            "stage_run_id": event.stage_run_id,
            "attempt": event.attempt,
            "source_seq": event.source_seq,
            "time": event.time,
        }
        for job_id, last in numbered
        for position, event in enumerate(events, start=1)
    ]
    session.execute(insert(Event), rows)


def announce_stage(session: Session, run: StageRun) -> None:
    """Tell every live job of a stage run its status."""
    append_events(session, live_jobs(session, run.id), [stage_status(run, database_time(session))])


def stage_status(run: StageRun, time: datetime) -> NewEvent:
    """A ``stage.status`` event of a stage run as it is now."""
    data: Json = {"stage": run.stage, "run": run.id, "status": run.status.value}
    if run.attempt:
        data["attempt"] = run.attempt
    return NewEvent("stage.status", data, time)


def live_jobs(session: Session, stage_run_id: str) -> list[str]:
    """Ids of the jobs that a stage run belongs to and that have not ended."""
    return list(
        session.scalars(
            select(JobStage.job_id)
            .join(Job, Job.id == JobStage.job_id)
            .where(JobStage.stage_run_id == stage_run_id, Job.status.not_in(TERMINAL_JOBS))
            .order_by(JobStage.job_id)
        )
    )


def storable(value: Any) -> Any:
    """A JSON value that PostgreSQL takes: NUL and lone surrogates, which jsonb refuses, become U+FFFD."""
    match value:
        case str():
            return _UNSTORABLE.sub("\ufffd", value)
        case dict():
            return {storable(key): storable(item) for key, item in value.items()}
        case list() | tuple():
            return [storable(item) for item in value]
        case _:
            return value
