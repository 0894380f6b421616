"""Copies an engine's events into the database, each exactly once, whatever is sent again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db.claims import Claim, hold
from app.db.events import NewEvent, append_events, live_jobs
from app.db.locks import share_graph
from app.db.models import Attempt, Json, Metric, StageRun
from deft_engine.events import decode_number

_ENVELOPE = ("seq", "time", "type")


def ingest(session: Session, claim: Claim, source_attempt: int, events: Sequence[Json]) -> None:
    """Write events of ``source_attempt``: this attempt, or an earlier one whose worker died with some unread.

    Metrics go to the stage run's series, progress to the stage run, and every event to each of its live jobs.
    Events up to the attempt's ``ingested_seq`` are known already and passed over.

    Raises:
        LeaseLost: the claim is over; nothing was written.
    """
    share_graph(session)
    run = hold(session, claim)
    source = session.get_one(Attempt, (run.id, source_attempt), populate_existing=True)
    fresh = [event for event in events if event["seq"] > source.ingested_seq]
    if not fresh:
        return
    source.ingested_seq = fresh[-1]["seq"]
    _store_metrics(session, run, [event for event in fresh if event["type"] == "metrics"])
    progress = [event for event in fresh if event["type"] == "progress"]
    if progress:
        run.progress = _fields(progress[-1])
    session.flush()
    append_events(
        session, live_jobs(session, run.id), [_job_event(run, source_attempt, event) for event in fresh]
    )


def _store_metrics(session: Session, run: StageRun, events: Sequence[Json]) -> None:
    points = {
        (name, event["step"]): {
            "stage_run_id": run.id,
            "name": name,
            "step": event["step"],
            "value": decode_number(value),
            "time": datetime.fromisoformat(event["time"]),
        }
        for event in events
        for name, value in event["values"].items()
    }
    if not points:
        return
    statement = insert(Metric)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[Metric.stage_run_id, Metric.name, Metric.step],
            set_={"value": statement.excluded.value, "time": statement.excluded.time},
        ),
        list(points.values()),
    )


def _job_event(run: StageRun, attempt: int, event: Json) -> NewEvent:
    return NewEvent(
        type=event["type"],
        data={"stage": run.stage, **_fields(event)},
        time=datetime.fromisoformat(event["time"]),
        stage_run_id=run.id,
        attempt=attempt,
        source_seq=event["seq"],
    )


def _fields(event: Json) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key not in _ENVELOPE}
