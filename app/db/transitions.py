"""What users may do to a job: each move changes what is wanted of its stages, and its status follows them."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from app.db.events import append_event
from app.db.graph import refresh_jobs, settle
from app.db.locks import lock_graph
from app.db.models import Job, JobStage, JobStatus

_ALLOWED: dict[JobStatus, tuple[str, ...]] = {
    JobStatus.QUEUED: ("cancel", "pause"),
    JobStatus.RUNNING: ("cancel", "pause"),
    JobStatus.PAUSING: ("cancel", "resume"),
    JobStatus.PAUSED: ("cancel", "resume"),
}


class IllegalMove(Exception):
    """A job in this status cannot do that; ``allowed`` lists what it can (nothing, once it is terminal)."""

    def __init__(self, move: str, status: JobStatus) -> None:
        self.move = move
        self.status = status
        self.allowed = list(allowed_moves(status))
        can = f"allowed: {', '.join(self.allowed)}" if self.allowed else "nothing is allowed"
        super().__init__(f"cannot {move} a job that is {status.value}; {can}")


def allowed_moves(status: JobStatus) -> tuple[str, ...]:
    """``cancel``, ``pause``, ``resume``: those that a job in this status takes."""
    return _ALLOWED.get(status, ())


def cancel_job(session: Session, job_id: str) -> Job:
    """End a job; its stages stop unless another live job or a dataset's import needs them.

    Raises:
        IllegalMove: the job has ended or is ending.
        sqlalchemy.exc.NoResultFound: there is no such job.
    """
    return _move(session, job_id, "cancel", JobStatus.CANCELLING)


def pause_job(session: Session, job_id: str) -> Job:
    """Hold a job; a stage that only it needs stops and keeps its checkpoint. Raises as ``cancel_job``."""
    return _move(session, job_id, "pause", JobStatus.PAUSING)


def resume_job(session: Session, job_id: str) -> Job:
    """Go on with a paused job where its stages were. Raises as ``cancel_job``."""
    return _move(session, job_id, "resume", JobStatus.QUEUED)


def _move(session: Session, job_id: str, move: str, status: JobStatus) -> Job:
    lock_graph(session)
    job = session.scalars(
        select(Job)
        .where(Job.id == job_id)
        .options(selectinload(Job.stages).selectinload(JobStage.stage_run))
        .execution_options(populate_existing=True)
    ).one()
    if move not in allowed_moves(job.status):
        raise IllegalMove(move, job.status)
    job.status = status
    append_event(session, job.id, "job.status", {"status": status.value})
    runs = [place.stage_run for place in job.stages]
    settle(session, runs)
    refresh_jobs(session, runs)
    return job
