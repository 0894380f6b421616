"""A job's metric series."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy.orm import Session

from app.api.dependencies import Transaction, Viewer, problems
from app.api.lookup import JobId, job_or_404
from app.api.schemas import Answer, Page
from app.db.job_stages import ShownStage, stages_of_jobs
from app.db.models import LIVE_STAGES, Job
from app.series import load_series, metric_names
from deft_engine.events import encode_number

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])

_ALIAS_PREFIX = "train/"
_Step = Annotated[int | None, Query(ge=0, le=2**63 - 1)]


class SeriesView(Answer):
    """A series, thinned to ``max_points``: each bucket keeps its minimum and maximum."""

    name: str
    points: list[tuple[int, float | str, str]]
    """``[step, value, time]``; NaN and infinities are the strings NaN, Infinity and -Infinity."""
    n: int = Field(description="Points between from_step and to_step, before thinning.")


@router.get("/metrics", operation_id="job_metrics", responses=problems())
def job_metrics(
    job_id: JobId,
    session: Transaction,
    caller: Viewer,
    name: Annotated[
        str | None,
        Query(
            max_length=2000,
            pattern=r"^[^\x00]*$",
            description="Names, comma-separated; without it all. `train/<name>` means `<name>` too.",
        ),
    ] = None,
    from_step: _Step = None,
    to_step: _Step = None,
    max_points: Annotated[int, Query(ge=1, le=10_000)] = 500,
) -> Page[SeriesView]:
    """Series of the job's stages, reused ones included; a name that has no points yet has an empty series."""
    runs = _runs_by_name(session, job_or_404(session, job_id))
    asked = list(dict.fromkeys(part for part in name.split(",") if part)) if name else sorted(runs)
    data = []
    for shown in asked:
        known = shown if shown in runs else shown.removeprefix(_ALIAS_PREFIX)
        if known not in runs:
            data.append(SeriesView(name=shown, points=[], n=0))
            continue
        run = runs[known]
        series = load_series(session, run.run_id, known, finished=run.status not in LIVE_STAGES)
        series = series.between(from_step, to_step)
        points = [
            (step, encode_number(value), time) for step, value, time in series.thinned(max_points).points()
        ]
        data.append(SeriesView(name=shown, points=points, n=len(series)))
    return Page(data=data, has_more=False)


def _runs_by_name(session: Session, job: Job) -> dict[str, ShownStage]:
    """Which stage run has the series of a name; of two, the later one of the plan."""
    stages = stages_of_jobs(session, [job.id])[job.id]
    having: dict[str, list[str]] = defaultdict(list)
    for run_id, name in metric_names(session, [stage.run_id for stage in stages]):
        having[run_id].append(name)
    return {name: stage for stage in stages for name in having[stage.run_id]}
