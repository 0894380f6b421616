"""Datasets and jobs, the stage runs that they are made of, and what those leave."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db.models.base import Base, Json, text_enum


class DatasetStatus(StrEnum):
    PROCESSING = "processing"
    READY = "ready"
    INVALID = "invalid"


class StageStatus(StrEnum):
    WAITING = "waiting"  # an input is not made yet
    READY = "ready"  # may be claimed
    RUNNING = "running"  # claimed, under a lease
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


LIVE_STAGES = (StageStatus.WAITING, StageStatus.READY, StageStatus.RUNNING, StageStatus.PAUSED)


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL_JOBS = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class AttemptStatus(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # cancel or pause
    LOST = "lost"  # the lease ran out


class Dataset(Base):
    """An upload, and the stage run that reads it: preference data, or answers to a dataset's prompts."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    status: Mapped[DatasetStatus] = mapped_column(text_enum(DatasetStatus, "status"))
    sha256: Mapped[str]  # of the upload as sent, or of what was asked of a hub
    size: Mapped[int] = mapped_column(BigInteger)
    requested_format: Mapped[str]
    subset: Mapped[str | None]
    answers_dataset_id: Mapped[str | None] = mapped_column(
        ForeignKey("datasets.id"), index=True
    )  # set where the upload holds generations: whose prompts they answer
    hub: Mapped[Json | None]  # what was asked of a hub, where nothing was uploaded
    import_run_id: Mapped[str] = mapped_column(ForeignKey("stage_runs.id"), index=True)
    summary: Mapped[Json | None]  # the import stage's result: format, rows, samples, rejected, ...
    error: Mapped[Json | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class StageRun(Base):
    """One execution of a stage; jobs whose plans hold the same fingerprint share it."""

    __tablename__ = "stage_runs"
    __table_args__ = (
        Index(
            "uq_stage_runs_reusable_fingerprint",
            "fingerprint",
            unique=True,
            postgresql_where=text(
                "reusable AND status IN ('waiting', 'ready', 'running', 'paused', 'succeeded')"
            ),
        ),
        Index(
            "ix_stage_runs_live",
            "status",
            postgresql_where=text("status IN ('waiting', 'ready', 'running', 'paused')"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    stage: Mapped[str]
    queue: Mapped[str]
    fingerprint: Mapped[str] = mapped_column(index=True)
    reusable: Mapped[bool] = mapped_column(default=True)  # False: made by ?reuse=false, for its own job alone
    spec: Mapped[Json]
    status: Mapped[StageStatus] = mapped_column(text_enum(StageStatus, "status"))
    attempt: Mapped[int] = mapped_column(default=0)  # number of the newest claim; every write carries it
    max_attempts: Mapped[int]
    lease_until: Mapped[datetime | None]  # by the database's clock
    worker: Mapped[str | None]
    stop_requested: Mapped[bool] = mapped_column(
        default=False
    )  # the worker ends the process at its next heartbeat
    progress: Mapped[Json | None]  # step, total, eta_s
    result: Mapped[Json | None]
    manifest: Mapped[Json | None]  # what the engine wrote last: versions, hashes of inputs and outputs
    error: Mapped[Json | None]
    ready_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]  # backoff after a crash
    sent_at: Mapped[datetime | None]  # last doorbell
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    inputs: Mapped[list[StageInput]] = relationship(
        foreign_keys="StageInput.stage_run_id", cascade="all, delete-orphan", order_by="StageInput.name"
    )


class StageInput(Base):
    """An input of a stage run: an output of another run, or something external."""

    __tablename__ = "stage_inputs"
    __table_args__ = (CheckConstraint("(upstream_id IS NULL) = (output IS NULL)", name="made_or_external"),)

    stage_run_id: Mapped[str] = mapped_column(
        ForeignKey("stage_runs.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    identity: Mapped[str]
    upstream_id: Mapped[str | None] = mapped_column(ForeignKey("stage_runs.id"), index=True)
    output: Mapped[str | None]
    uri: Mapped[str | None]


class Job(Base):
    """What a user asked for: a plan of stage runs."""

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_created_at_id", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    status: Mapped[JobStatus] = mapped_column(text_enum(JobStatus, "status"))
    spec: Mapped[Json]
    warnings: Mapped[list[Any]]
    error: Mapped[Json | None]
    result: Mapped[Json | None]
    event_seq: Mapped[int] = mapped_column(BigInteger, default=0)  # last sequence number given to an event
    created_by: Mapped[str | None]  # key id
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    stages: Mapped[list[JobStage]] = relationship(
        cascade="all, delete-orphan", order_by="JobStage.position", back_populates="job"
    )


class JobStage(Base):
    """A stage run's place in a job's plan."""

    __tablename__ = "job_stages"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    stage_run_id: Mapped[str] = mapped_column(ForeignKey("stage_runs.id"), index=True)
    reused: Mapped[bool] = mapped_column(default=False)  # it had succeeded, or was under way, before this job

    job: Mapped[Job] = relationship(back_populates="stages")
    stage_run: Mapped[StageRun] = relationship()


class JobDataset(Base):
    """A dataset that a job names, so that it is not deleted under it."""

    __tablename__ = "job_datasets"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    dataset_id: Mapped[str] = mapped_column(
        ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    is_eval: Mapped[bool] = mapped_column(primary_key=True)


class Attempt(Base):
    """One claim of a stage run by a worker."""

    __tablename__ = "attempts"

    stage_run_id: Mapped[str] = mapped_column(
        ForeignKey("stage_runs.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str]
    status: Mapped[AttemptStatus] = mapped_column(text_enum(AttemptStatus, "status"))
    ingested_seq: Mapped[int] = mapped_column(BigInteger, default=0)  # last of the engine's events copied
    exit_code: Mapped[int | None]
    error: Mapped[Json | None]
    log: Mapped[str | None]  # the last part of the process's output
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]


class Event(Base):
    """What happened in a job, numbered 1, 2, ... without gaps in the order of commit."""

    __tablename__ = "events"
    __table_args__ = (UniqueConstraint("job_id", "stage_run_id", "attempt", "source_seq"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    type: Mapped[str]
    data: Mapped[Json]
    stage_run_id: Mapped[str | None] = mapped_column(ForeignKey("stage_runs.id"))
    attempt: Mapped[int | None]
    source_seq: Mapped[int | None] = mapped_column(BigInteger)  # the engine's own number
    time: Mapped[datetime]


class Metric(Base):
    """A point of a series; a step repeated after a resume replaces the earlier point."""

    __tablename__ = "metrics"

    stage_run_id: Mapped[str] = mapped_column(
        ForeignKey("stage_runs.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    value: Mapped[float]  # NaN and infinities are themselves
    time: Mapped[datetime]


class Artifact(Base):
    """A file that a stage run made, or (manifest.json) a job's own; its content is in the store."""

    __tablename__ = "artifacts"
    __table_args__ = (
        UniqueConstraint("stage_run_id", "name"),
        UniqueConstraint("job_id", "name"),
        CheckConstraint("(stage_run_id IS NULL) <> (job_id IS NULL)", name="one_owner"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    stage_run_id: Mapped[str | None] = mapped_column(ForeignKey("stage_runs.id", ondelete="CASCADE"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    name: Mapped[str]
    sha256: Mapped[str] = mapped_column(index=True)
    size: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
