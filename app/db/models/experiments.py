"""Experiments, and the jobs that are theirs."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db.models.base import Base, Json
from app.db.models.jobs import Job


class Experiment(Base):
    """Arms x seeds, compared as one table."""

    __tablename__ = "experiments"
    __table_args__ = (Index("ix_experiments_created_at_id", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    spec: Mapped[Json]  # with what its preset gave
    created_by: Mapped[str | None]  # key id
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    jobs: Mapped[list[ExperimentJob]] = relationship(
        cascade="all, delete-orphan", order_by="ExperimentJob.position"
    )


class ExperimentJob(Base):
    """A job's place in an experiment: which arm, and with which seed."""

    __tablename__ = "experiment_jobs"

    experiment_id: Mapped[str] = mapped_column(
        ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)  # arm by arm, seed by seed
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    arm: Mapped[int]  # number in the spec's arms
    seed: Mapped[int | None] = mapped_column(BigInteger)  # null: a model that is evaluated as it is

    job: Mapped[Job] = relationship()
