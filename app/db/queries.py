"""What the API reads: jobs with their stages, artifacts, events, and who uses what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.job_stages import stages_of_jobs
from app.db.models import (
    TERMINAL_JOBS,
    Artifact,
    Attempt,
    Dataset,
    Event,
    Job,
    JobDataset,
    JobStage,
    JobStatus,
    StageInput,
    StageRun,
    StageStatus,
)


def find_dataset(session: Session, dataset_id: str) -> Dataset | None:
    """A dataset by its id; any text may be asked for."""
    found = _find_upload(session, dataset_id)
    return found if found is not None and found.answers_dataset_id is None else None


def find_generations(session: Session, generations_id: str) -> Dataset | None:
    """Imported generations by their id; any text may be asked for."""
    found = _find_upload(session, generations_id)
    return found if found is not None and found.answers_dataset_id is not None else None


def _find_upload(session: Session, upload_id: str) -> Dataset | None:
    return session.get(Dataset, upload_id) if "\x00" not in upload_id else None


def generations_of_dataset(session: Session, dataset_id: str) -> Sequence[str]:
    """Ids of the imported generations that answer a dataset."""
    query = sa.select(Dataset.id).where(Dataset.answers_dataset_id == dataset_id)
    return session.scalars(query.order_by(Dataset.id)).all()


def find_job(session: Session, job_id: str) -> Job | None:
    """A job by its id; any text may be asked for."""
    return session.get(Job, job_id) if "\x00" not in job_id else None


def live_jobs_of_dataset(session: Session, dataset_id: str) -> Sequence[str]:
    """Ids of the jobs that name a dataset and have not ended."""
    return session.scalars(
        sa.select(Job.id)
        .join(JobDataset, JobDataset.job_id == Job.id)
        .where(JobDataset.dataset_id == dataset_id, Job.status.not_in(TERMINAL_JOBS))
        .distinct()
        .order_by(Job.id)
    ).all()


def others_have_upload(session: Session, dataset: Dataset) -> bool:
    """Whether another dataset, or an artifact of a job, has the same bytes."""
    other = sa.exists().where(Dataset.sha256 == dataset.sha256, Dataset.id != dataset.id)
    artifact = sa.exists().where(Artifact.sha256 == dataset.sha256)
    return bool(session.scalar(sa.select(sa.or_(other, artifact))))


def upload_is_read(session: Session, dataset: Dataset) -> bool:
    """Whether a worker reads the upload's bytes now."""
    reading = sa.exists().where(
        StageInput.uri == f"upload:{dataset.sha256}",
        StageRun.id == StageInput.stage_run_id,
        StageRun.status == StageStatus.RUNNING,
    )
    return bool(session.scalar(sa.select(reading)))


def artifact_of_run(session: Session, stage_run_id: str, name: str) -> Artifact | None:
    """An artifact that a stage run made."""
    return session.scalar(
        sa.select(Artifact).where(Artifact.stage_run_id == stage_run_id, Artifact.name == name)
    )


def grade_run(session: Session, dataset: Dataset, job_id: str | None) -> StageRun | None:
    """The stage run that graded a dataset: the newest that succeeded, or that of one job."""
    query = (
        sa.select(StageRun)
        .join(StageInput, StageInput.stage_run_id == StageRun.id)
        .where(
            StageRun.stage == "grade",
            StageRun.status == StageStatus.SUCCEEDED,
            StageInput.name == "samples",
            StageInput.upstream_id == dataset.import_run_id,
        )
        .order_by(StageRun.finished_at.desc(), StageRun.id)
        .limit(1)
    )
    if job_id is not None:
        query = query.join(JobStage, JobStage.stage_run_id == StageRun.id).where(JobStage.job_id == job_id)
    return session.scalar(query)


@dataclass(frozen=True, slots=True)
class NamedArtifact:
    """An artifact under the name that it has in a job, and the stage that made it (None: the job itself)."""

    name: str
    stage: str | None
    artifact: Artifact


def artifacts_of_job(session: Session, job: Job) -> list[NamedArtifact]:
    """A job's artifacts in the order of its plan, reused stages' included.

    Of two files of one name (two datasets were imported), the later one's is ``<run id>/<name>``.
    """
    stages = {stage.run_id: stage.stage for stage in stages_of_jobs(session, [job.id])[job.id]}
    rows = session.scalars(
        sa.select(Artifact).where(sa.or_(Artifact.stage_run_id.in_(stages), Artifact.job_id == job.id))
    ).all()
    positions = {run_id: position for position, run_id in enumerate(stages)}
    order = {row.id: positions[row.stage_run_id] if row.stage_run_id else len(stages) for row in rows}
    named: dict[str, NamedArtifact] = {}
    for row in sorted(rows, key=lambda row: (order[row.id], row.name)):
        name = f"{row.stage_run_id}/{row.name}" if row.name in named else row.name
        stage = stages[row.stage_run_id] if row.stage_run_id else None
        named[name] = NamedArtifact(name, stage, row)
    return list(named.values())


def events_after(
    session: Session, job_id: str, after: int, limit: int, types: Sequence[str] = ()
) -> Sequence[Event]:
    """A job's events with a number above ``after``, in order; of some types, if any are named."""
    query = sa.select(Event).where(Event.job_id == job_id, Event.seq > after)
    if types:
        query = query.where(Event.type.in_(types))
    return session.scalars(query.order_by(Event.seq).limit(limit)).all()


def attempts_of_job(session: Session, job: Job) -> Sequence[Attempt]:
    """Every claim of the job's stages, in the order of the plan."""
    return session.scalars(
        sa.select(Attempt)
        .join(JobStage, JobStage.stage_run_id == Attempt.stage_run_id)
        .where(JobStage.job_id == job.id)
        .order_by(JobStage.position, Attempt.number)
    ).all()


def job_status(session: Session, job_id: str) -> JobStatus | None:
    """A job's status now, or None where there is no such job."""
    return session.scalar(sa.select(Job.status).where(Job.id == job_id))
