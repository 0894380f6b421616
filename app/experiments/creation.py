"""An experiment becomes jobs, all in one transaction; it can be cancelled as one."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from app.db.models import Experiment, ExperimentJob, Job, JobStage
from app.db.submit import submit_job
from app.db.transitions import IllegalMove, allowed_moves, cancel_job
from app.experiments.status import experiment_status
from app.ids import new_id
from app.resolver import plan_for
from deft_engine.errors import SpecError
from deft_engine.experiments.arms import ArmJob, jobs_of, place_of
from deft_engine.experiments.spec import ExperimentSpec

WITH_JOBS = (
    selectinload(Experiment.jobs)
    .joinedload(ExperimentJob.job)
    .selectinload(Job.stages)
    .joinedload(JobStage.stage_run)
)
"""Loader option: an experiment's jobs with their stage runs."""


def create_experiment(session: Session, spec: ExperimentSpec, created_by: str | None) -> Experiment:
    """Submit the jobs of an experiment; stages that are equal are one stage run.

    Raises:
        SpecError: the arms do not make an experiment (``InvalidExperiment``), or a name cannot be resolved.
    """
    jobs = jobs_of(spec)
    experiment = Experiment(id=new_id("exp"), name=spec.name, spec=spec.resolved(), created_by=created_by)
    session.add(experiment)
    session.flush()
    for position, arm_job in enumerate(jobs):
        session.add(
            ExperimentJob(
                experiment_id=experiment.id,
                position=position,
                job_id=_submit(session, spec, arm_job, created_by).id,
                arm=arm_job.arm,
                seed=arm_job.seed,
            )
        )
    session.flush()
    return experiment


def find_experiment(session: Session, experiment_id: str) -> Experiment | None:
    """An experiment with its jobs and their stages, as the database has them now."""
    return session.scalar(
        select(Experiment)
        .where(Experiment.id == experiment_id)
        .options(WITH_JOBS)
        .execution_options(populate_existing=True)
    )


def cancel_experiment(session: Session, experiment: Experiment) -> None:
    """Cancel every job of an experiment that has not ended.

    Raises:
        IllegalMove: all of them have ended, or are ending.
    """
    live = [place.job_id for place in experiment.jobs if "cancel" in allowed_moves(place.job.status)]
    if not live:
        raise IllegalMove("cancel", experiment_status([place.job.status for place in experiment.jobs]))
    for job_id in live:
        cancel_job(session, job_id)


def _submit(session: Session, spec: ExperimentSpec, arm_job: ArmJob, created_by: str | None) -> Job:
    try:
        plan, datasets = plan_for(session, arm_job.spec)
    except SpecError as error:
        error.pointer = place_of(error.pointer, spec.arms[arm_job.arm], spec)
        raise
    ids = list(dict.fromkeys(dataset.id for dataset in datasets.values()))
    return submit_job(session, arm_job.spec, plan, reuse=True, created_by=created_by, dataset_ids=ids)
