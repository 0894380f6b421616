"""Jobs: sent, estimated, listed, moved."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from app.api.dependencies import After, Limit, LimitOrAll, Researcher, Transaction, Viewer, problems
from app.api.job_views import AttemptView, JobView, LogLine, view_attempt, view_job, view_log
from app.api.lookup import JobId, job_or_404
from app.api.pages import newest_first, page_of
from app.api.schemas import Page
from app.auth import Principal
from app.db.job_stages import stages_of_jobs
from app.db.models import Job, JobStatus
from app.db.queries import attempts_of_job, events_after
from app.db.submit import submit_job
from app.db.transitions import IllegalMove, cancel_job, pause_job, resume_job
from app.errors import Problem
from app.estimates import Estimate, estimate_job
from app.idempotency import Idempotent, created
from app.resolver import plan_for
from deft_engine.specs import Job as JobRequest
from deft_engine.specs import JobSpec

router = APIRouter(prefix="/jobs", tags=["jobs"])

_MOVES = {"cancel": cancel_job, "pause": pause_job, "resume": resume_job}


@router.post(
    "",
    operation_id="create_job",
    status_code=201,
    response_model=JobView,
    responses={**problems(409), 200: {"model": Estimate, "description": "With dry_run: what it would cost"}},
)
def create_job(
    spec: JobSpec,
    session: Transaction,
    caller: Researcher,
    once: Idempotent,
    dry_run: Annotated[bool, Query(description="Validate and estimate; create nothing.")] = False,
    reuse: Annotated[bool, Query(description="Use what equal stages have made before.")] = True,
) -> Response:
    """Send a job. Its stages are those of its plan; equal ones that ran before, or run now, are joined."""
    if dry_run:
        plan, datasets = plan_for(session, spec)
        estimate = estimate_job(session, spec, plan, datasets, reuse=reuse)
        return JSONResponse(estimate.model_dump(mode="json"))
    return once.answer(session, caller, lambda: _create(session, spec, caller, reuse=reuse))


@router.get("", operation_id="list_jobs", responses=problems())
def list_jobs(
    session: Transaction,
    caller: Viewer,
    status: JobStatus | None = None,
    kind: Literal["align", "grade", "reward_model", "evaluate", "augment", "judge"] | None = None,
    limit: Limit = 20,
    after: After = None,
) -> Page[JobView]:
    """Jobs, newest first."""
    where = [
        column == value for column, value in ((Job.status, status), (Job.kind, kind)) if value is not None
    ]
    jobs, has_more = newest_first(session, Job, *where, limit=limit, after=after)
    stages = stages_of_jobs(session, [job.id for job in jobs])
    return Page(data=[view_job(job, stages[job.id]) for job in jobs], has_more=has_more)


@router.get("/{job_id}", operation_id="get_job", responses=problems())
def get_job(job_id: JobId, session: Transaction, caller: Viewer) -> JobView:
    """One job."""
    return _shown(session, job_id)


@router.post("/{job_id}/cancel", operation_id="cancel_job", responses=problems(409))
def cancel(job_id: JobId, session: Transaction, caller: Researcher) -> JobView:
    """End a job; a stage that another live job needs goes on."""
    return _move(session, job_id, "cancel")


@router.post("/{job_id}/pause", operation_id="pause_job", responses=problems(409))
def pause(job_id: JobId, session: Transaction, caller: Researcher) -> JobView:
    """Hold a job; its running stage stops at a checkpoint."""
    return _move(session, job_id, "pause")


@router.post("/{job_id}/resume", operation_id="resume_job", responses=problems(409))
def resume(job_id: JobId, session: Transaction, caller: Researcher) -> JobView:
    """Go on with a paused job."""
    return _move(session, job_id, "resume")


@router.get("/{job_id}/attempts", operation_id="job_attempts", responses=problems())
def job_attempts(
    job_id: JobId,
    session: Transaction,
    caller: Viewer,
    limit: LimitOrAll = None,
    after: After = None,
) -> Page[AttemptView]:
    """Every claim of the job's stages by a worker, with the end of its output."""
    job = job_or_404(session, job_id)
    names = {stage.run_id: stage.stage for stage in stages_of_jobs(session, [job_id])[job_id]}
    views = [view_attempt(attempt, names[attempt.stage_run_id]) for attempt in attempts_of_job(session, job)]
    page, has_more = page_of(views, lambda view: view.id, limit=limit, after=after)
    return Page(data=list(page), has_more=has_more)


@router.get("/{job_id}/logs", operation_id="job_logs", responses=problems())
def job_logs(
    job_id: JobId,
    session: Transaction,
    caller: Viewer,
    limit: Limit = 20,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="The last line's seq.")] = 0,
) -> Page[LogLine]:
    """What the stages wrote for people, errors included; a process's raw output is in its attempt."""
    job_or_404(session, job_id)
    events = events_after(session, job_id, after, limit + 1, types=("log", "error"))
    return Page(data=[view_log(event) for event in events[:limit]], has_more=len(events) > limit)


def _create(
    session: Session,
    spec: JobRequest,
    caller: Principal,
    *,
    reuse: bool,
) -> Response:
    plan, datasets = plan_for(session, spec)
    ids = list(dict.fromkeys(dataset.id for dataset in datasets.values()))
    job = submit_job(session, spec, plan, reuse=reuse, created_by=caller.key_id, dataset_ids=ids)
    return created(_shown_anew(session, job.id), f"/jobs/{job.id}")


def _move(session: Session, job_id: str, move: str) -> JobView:
    job_or_404(session, job_id)
    try:
        _MOVES[move](session, job_id)
    except IllegalMove as error:
        raise Problem(
            409,
            "illegal_move",
            "The job's status does not allow it",
            str(error),
            extra={"job_status": error.status, "allowed": error.allowed},
        ) from error
    return _shown_anew(session, job_id)


def _shown(session: Session, job_id: str) -> JobView:
    job = job_or_404(session, job_id)
    return view_job(job, stages_of_jobs(session, [job_id])[job_id])


def _shown_anew(session: Session, job_id: str) -> JobView:
    """The job as the database has it now, defaults of the server included."""
    session.flush()
    session.expire_all()
    return _shown(session, job_id)
