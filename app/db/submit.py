"""From a plan to rows: work that is done or under way is joined, the rest is put down to be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.db.events import NewEvent, append_event, append_events, stage_status
from app.db.graph import make_ready, refresh_jobs, settle, start_if_possible, startable
from app.db.locks import database_time, lock_graph
from app.db.models import (
    LIVE_STAGES,
    Job,
    JobDataset,
    JobStage,
    JobStatus,
    StageInput,
    StageRun,
    StageStatus,
)
from app.ids import new_id
from app.settings import get_settings
from deft_engine.errors import SpecError
from deft_engine.plan import External, Made, Plan, PlannedStage
from deft_engine.specs import Job as JobRequest

_NAMING = ("dataset", "questions", "answers", "against", "references")
_USABLE = (*LIVE_STAGES, StageStatus.SUCCEEDED)


def submit_job(
    session: Session,
    spec: JobRequest,
    plan: Plan,
    *,
    reuse: bool,
    created_by: str | None,
    dataset_ids: Sequence[str],
) -> Job:
    """Create a job; its stage runs are joined by fingerprint (``reuse``) or made anew, for it alone.

    Raises:
        SpecError: an input names work that neither succeeded nor is under way.
    """
    lock_graph(session)
    job = Job(
        id=new_id("job"),
        kind=spec.kind,
        name=spec.name,
        status=JobStatus.QUEUED,
        spec=spec.model_dump(mode="json"),
        warnings=list(plan.warnings),
        created_by=created_by,
    )
    session.add(job)
    session.flush()
    _name_datasets(session, job, spec, dataset_ids)
    append_event(session, job.id, "job.status", {"status": job.status.value})
    runs: dict[str, StageRun] = {}
    joined: list[StageRun] = []
    for position, planned in enumerate(plan.stages):
        run, is_new = _join_or_create(session, planned, runs, reusable=reuse)
        runs[planned.fingerprint] = run
        session.add(JobStage(job_id=job.id, position=position, stage_run_id=run.id, reused=not is_new))
        joined += [] if is_new else [run]
    session.flush()
    settle(session, runs.values())
    started = startable(session, [run.id for run in runs.values()])
    for run in started:
        make_ready(session, run)
    now = database_time(session)
    known = [stage_status(run, now) for run in runs.values() if run not in started]
    append_events(session, [job.id], known + _told_as_reused(session, joined, now))
    refresh_jobs(session, list(runs.values()))
    return job


def submit_import(session: Session, planned: PlannedStage) -> StageRun:
    """Join or create an upload's stage run; the caller adds the dataset's row (``graph.record_import``)."""
    lock_graph(session)
    run, _ = _join_or_create(session, planned, {}, reusable=True)
    run.stop_requested = False
    if run.status is StageStatus.PAUSED:
        run.status = StageStatus.WAITING
    start_if_possible(session, run)
    session.flush()
    return run


def _join_or_create(
    session: Session, planned: PlannedStage, plan_runs: Mapping[str, StageRun], *, reusable: bool
) -> tuple[StageRun, bool]:
    """A planned stage's run, and whether it is new; between two creators the unique index decides."""
    created = session.scalar(
        insert(StageRun)
        .values(
            id=new_id("run"),
            stage=planned.stage,
            queue=planned.queue.value,
            fingerprint=planned.fingerprint,
            reusable=reusable,
            spec=planned.spec,
            status=StageStatus.WAITING,
            attempt=0,
            max_attempts=get_settings().max_attempts,
            stop_requested=False,
        )
        .on_conflict_do_nothing()
        .returning(StageRun.id)
    )
    if created is None:
        joined = _usable_run(session, planned.fingerprint)
        assert joined is not None  # nothing ends while the graph is locked
        return joined, False
    for name, source in planned.inputs.items():
        session.add(_stage_input(session, created, name, source, plan_runs))
    session.flush()
    return session.get_one(StageRun, created), True


def _stage_input(
    session: Session, run_id: str, name: str, source: External | Made, plan_runs: Mapping[str, StageRun]
) -> StageInput:
    if isinstance(source, External):
        return StageInput(stage_run_id=run_id, name=name, identity=source.identity, uri=source.uri)
    upstream = plan_runs.get(source.fingerprint) or _usable_run(session, source.fingerprint)
    if upstream is None:
        raise SpecError(
            f"input {name} is {source.output} of a stage run that is neither done nor under way",
            hint="the job that was to make it failed or was cancelled; run that job again first",
        )
    return StageInput(
        stage_run_id=run_id,
        name=name,
        identity=source.identity,
        upstream_id=upstream.id,
        output=source.output,
    )


def _usable_run(session: Session, fingerprint: str) -> StageRun | None:
    """The stage run that holds a fingerprint: the shared one, else the newest private one."""
    return session.scalars(
        select(StageRun)
        .where(StageRun.fingerprint == fingerprint, StageRun.status.in_(_USABLE))
        .order_by(StageRun.reusable.desc(), StageRun.created_at.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    ).first()


def _told_as_reused(session: Session, joined: Sequence[StageRun], now: datetime) -> list[NewEvent]:
    """A line of the log for each stage that the job need not run, with the job whose it is."""
    made_by = dict(
        session.execute(
            select(JobStage.stage_run_id, JobStage.job_id).where(
                JobStage.stage_run_id.in_([run.id for run in joined]), JobStage.reused.is_(False)
            )
        ).all()
    )
    lines = []
    for run in joined:
        owner = f"job {made_by[run.id]}" if run.id in made_by else "the upload of its dataset"
        what = "reused" if run.status is StageStatus.SUCCEEDED else "shared, it is under way"
        data = {"stage": run.stage, "level": "info", "message": f"{what}: {run.id} of {owner}"}
        lines.append(NewEvent("log", data, now))
    return lines


def _name_datasets(
    session: Session,
    job: Job,
    spec: JobRequest,
    dataset_ids: Sequence[str],
) -> None:
    """Note the datasets that the job names, so that they are not deleted under it."""
    eval_dataset = getattr(spec, "eval_dataset", None)
    others = {getattr(spec, field, None) for field in _NAMING}
    others.add(getattr(getattr(spec, "model", None), "generations", None))
    named = {(eval_dataset, True), *((dataset, False) for dataset in others)}
    session.add_all(
        JobDataset(job_id=job.id, dataset_id=dataset, is_eval=is_eval)
        for dataset, is_eval in named
        if dataset in dataset_ids
    )
