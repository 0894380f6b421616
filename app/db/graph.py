"""The rules of the graph: a stage run does what the jobs that need it want; a job follows its stages.

Every function here is called with the graph locked (``locks.lock_graph``), unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import exists, select
from sqlalchemy.orm import Session, aliased, selectinload

from app.db.events import announce_stage, append_event
from app.db.job_results import fill_result
from app.db.locks import database_time
from app.db.models import (
    LIVE_STAGES,
    TERMINAL_JOBS,
    Dataset,
    DatasetStatus,
    Job,
    JobStage,
    JobStatus,
    Json,
    StageInput,
    StageRun,
    StageStatus,
)
from app.db.session import ring_after_commit

ENDED_STAGES = (StageStatus.SUCCEEDED, StageStatus.FAILED, StageStatus.CANCELLED)


class Wanted(StrEnum):
    """What the jobs and datasets that need a stage run want of it; the first of these that anyone wants."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


def wanted(session: Session, run: StageRun) -> Wanted:
    """What is wanted of ``run`` by datasets it imports, and by live jobs of it and of what waits for it."""
    waiting_for_it = select(StageRun.id).where(StageRun.id == run.id).cte("needing", recursive=True)
    waiting_for_it = waiting_for_it.union(
        select(StageInput.stage_run_id)
        .join(waiting_for_it, StageInput.upstream_id == waiting_for_it.c.id)
        .join(StageRun, StageRun.id == StageInput.stage_run_id)
        .where(StageRun.status.in_(LIVE_STAGES))
    )
    imported = exists().where(Dataset.import_run_id == run.id, Dataset.status == DatasetStatus.PROCESSING)
    if session.scalar(select(imported)):
        return Wanted.RUN
    statuses = set(
        session.scalars(
            select(Job.status)
            .join(JobStage, JobStage.job_id == Job.id)
            .where(JobStage.stage_run_id.in_(select(waiting_for_it.c.id)))
        )
    )
    if statuses & {JobStatus.QUEUED, JobStatus.RUNNING}:
        return Wanted.RUN
    return Wanted.PAUSE if statuses & {JobStatus.PAUSING, JobStatus.PAUSED} else Wanted.CANCEL


def settle(session: Session, runs: Iterable[StageRun]) -> None:
    """Let each of ``runs``, and each that they wait for, do what is wanted.

    What they wait for may be of another job alone (a model ``job:<id>``), which has ended or is paused. A
    running stage run is asked, and answers by ``interrupt``.
    """
    for run in _with_upstream(session, runs):
        want = wanted(session, run)
        if run.status is StageStatus.RUNNING:
            run.stop_requested = want is not Wanted.RUN
        elif want is Wanted.CANCEL:
            end(session, run, StageStatus.CANCELLED)
        elif want is Wanted.PAUSE:
            if run.status is not StageStatus.PAUSED:
                run.status = StageStatus.PAUSED
                announce_stage(session, run)
        elif run.status is StageStatus.PAUSED:
            run.status = StageStatus.WAITING
            if not start_if_possible(session, run):
                announce_stage(session, run)


def startable(session: Session, ids: Iterable[str] | None = None) -> Sequence[StageRun]:
    """The stage runs (of all, or of ``ids``) that wait although every input is made."""
    upstream = aliased(StageRun)
    missing = exists().where(
        StageInput.stage_run_id == StageRun.id,
        StageInput.upstream_id == upstream.id,
        upstream.status != StageStatus.SUCCEEDED,
    )
    query = select(StageRun).where(StageRun.status == StageStatus.WAITING, ~missing).order_by(StageRun.id)
    if ids is not None:
        query = query.where(StageRun.id.in_(list(ids)))
    return session.scalars(query.execution_options(populate_existing=True)).all()


def start_if_possible(session: Session, run: StageRun) -> bool:
    """Make a waiting stage run ready if all its inputs are made; returns whether it did."""
    session.flush()
    if not startable(session, [run.id]):
        return False
    make_ready(session, run)
    return True


def make_ready(session: Session, run: StageRun, *, delay: float = 0.0) -> None:
    """Put a stage run into its queue, to be claimed after ``delay`` seconds."""
    now = database_time(session)
    run.status = StageStatus.READY
    run.ready_at = now
    run.not_before = now + timedelta(seconds=delay) if delay else None
    run.sent_at = None if delay else now
    run.stop_requested = False
    release_claim(run)
    announce_stage(session, run)
    if not delay:
        ring_after_commit(session, run.id, run.queue)


def put_back(session: Session, run: StageRun, *, delay: float = 0.0) -> None:
    """A stage run that nobody runs any more, unfinished, goes where it is wanted; ``work/`` stays."""
    want = wanted(session, run)
    if want is Wanted.RUN:
        make_ready(session, run, delay=delay)
    elif want is Wanted.PAUSE:
        run.status = StageStatus.PAUSED
        run.stop_requested = False
        release_claim(run)
        announce_stage(session, run)
    else:
        end(session, run, StageStatus.CANCELLED)


def end(session: Session, run: StageRun, status: StageStatus, error: Json | None = None) -> list[StageRun]:
    """End a stage run, and bring what waits for it onwards, or down with it; returns all that ended."""
    run.status = status
    run.error = error
    run.finished_at = database_time(session)
    run.stop_requested = False
    release_claim(run)
    announce_stage(session, run)
    session.flush()
    for dataset in session.scalars(select(Dataset).where(Dataset.import_run_id == run.id)):
        record_import(dataset, run)
    ended = [run]
    if status is StageStatus.CANCELLED:  # nobody wants it, so nobody wants what waits for it
        return ended
    dependents = _dependents(session, run)
    if status is StageStatus.SUCCEEDED:
        for dependent in startable(session, dependents):
            make_ready(session, dependent)
        return ended
    for dependent in load_runs(session, dependents):
        if dependent.status not in ENDED_STAGES:
            ended += end(session, dependent, StageStatus.FAILED, _upstream_failed(run, error or {}))
    return ended


def record_import(dataset: Dataset, run: StageRun) -> None:
    """Set a dataset's status, summary and error by the stage run that imports it (any lock, or none)."""
    if run.status is StageStatus.SUCCEEDED:
        dataset.status, dataset.summary, dataset.error = DatasetStatus.READY, run.result, None
    elif run.status in ENDED_STAGES:
        found = (run.error or {}).get("summary")
        dataset.status, dataset.summary, dataset.error = DatasetStatus.INVALID, found, run.error
    else:
        dataset.status, dataset.summary, dataset.error = DatasetStatus.PROCESSING, None, None


def release_claim(run: StageRun) -> None:
    """Nobody holds the stage run any more."""
    run.lease_until = None
    run.worker = None


def refresh_jobs(session: Session, runs: Sequence[StageRun]) -> None:
    """Let the status of every live job of ``runs`` follow; a failed job lets go of its other stages."""
    session.flush()
    jobs = session.scalars(
        select(Job)
        .join(JobStage, JobStage.job_id == Job.id)
        .where(JobStage.stage_run_id.in_([run.id for run in runs]), Job.status.not_in(TERMINAL_JOBS))
        .distinct()
        .order_by(Job.id)
        .options(selectinload(Job.stages).selectinload(JobStage.stage_run))
        .execution_options(populate_existing=True)
    ).all()
    failed = [job for job in jobs if _refresh(session, job) is JobStatus.FAILED]
    session.flush()
    for job in failed:
        settle(session, [place.stage_run for place in job.stages])


def job_status(current: JobStatus, runs: Sequence[StageRun]) -> JobStatus:
    """A job's status by that of its stages; a terminal one never changes."""
    statuses = {run.status for run in runs}
    stopping = any(run.status is StageStatus.RUNNING and run.stop_requested for run in runs)
    status = JobStatus.QUEUED
    if current in TERMINAL_JOBS:
        status = current
    elif current is JobStatus.CANCELLING:
        status = JobStatus.CANCELLING if stopping else JobStatus.CANCELLED
    elif StageStatus.FAILED in statuses:
        status = JobStatus.FAILED
    elif statuses <= {StageStatus.SUCCEEDED}:
        status = JobStatus.SUCCEEDED
    elif current in (JobStatus.PAUSING, JobStatus.PAUSED):
        status = JobStatus.PAUSING if stopping else JobStatus.PAUSED
    elif StageStatus.RUNNING in statuses or current is JobStatus.RUNNING:
        status = JobStatus.RUNNING
    return status


def load_runs(session: Session, ids: Iterable[str]) -> Sequence[StageRun]:
    """Stage runs as they are now, in the order of their ids."""
    return session.scalars(
        select(StageRun)
        .where(StageRun.id.in_(list(ids)))
        .order_by(StageRun.id)
        .execution_options(populate_existing=True)
    ).all()


def _refresh(session: Session, job: Job) -> JobStatus:
    status = job_status(job.status, [place.stage_run for place in job.stages])
    if status is job.status:
        return status
    job.status = status
    now = database_time(session)
    if job.started_at is None and status in (JobStatus.RUNNING, JobStatus.SUCCEEDED, JobStatus.FAILED):
        job.started_at = now
    if status in TERMINAL_JOBS:
        job.finished_at = now
    if status is JobStatus.SUCCEEDED:
        fill_result(session, job)
    if status is JobStatus.FAILED:
        job.error = _first_error(job)
    append_event(session, job.id, "job.status", {"status": status.value})
    return status


def _first_error(job: Job) -> Json:
    """The error that the others follow from, its message starting with the stage's name."""
    failed = [place.stage_run for place in job.stages if place.stage_run.status is StageStatus.FAILED]
    first = min(failed, key=lambda run: (run.error or {}).get("code") == "upstream_failed")
    error = dict(first.error or {})
    return {**error, "message": f"stage {first.stage}: {error.get('message', 'failed')}"}


def _with_upstream(session: Session, runs: Iterable[StageRun]) -> Sequence[StageRun]:
    """The live ones of ``runs`` and of all that make their inputs, at any distance."""
    live = StageRun.status.in_(LIVE_STAGES)
    needed = select(StageRun.id).where(StageRun.id.in_([run.id for run in runs]), live)
    chain = needed.cte("needed", recursive=True)
    chain = chain.union(
        select(StageInput.upstream_id)
        .join(chain, StageInput.stage_run_id == chain.c.id)
        .join(StageRun, StageRun.id == StageInput.upstream_id)
        .where(live)
    )
    session.flush()
    return load_runs(session, session.scalars(select(chain.c.id)))


def _dependents(session: Session, run: StageRun) -> Sequence[str]:
    return session.scalars(select(StageInput.stage_run_id).where(StageInput.upstream_id == run.id)).all()


def _upstream_failed(run: StageRun, error: Json) -> Json:
    return {
        "code": "upstream_failed",
        "message": f"stage {run.stage}, which makes an input, failed: {error.get('message', '')}",
        "hint": error.get("hint", ""),
        "retryable": False,
    }
