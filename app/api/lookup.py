"""From an id in an address to its row, or 404."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from sqlalchemy.orm import Session

from app.db.models import Dataset, Experiment, Job
from app.db.queries import find_dataset, find_generations, find_job
from app.errors import not_found
from app.experiments.creation import find_experiment

DatasetId = Annotated[str, Path(examples=["ds_7k2m9x4p0q8r1s6t3v5w"])]
GenerationsId = Annotated[str, Path(examples=["gen_7k2m9x4p0q8r1s6t3v5w"])]
JobId = Annotated[str, Path(examples=["job_7k2m9x4p0q8r1s6t3v5w"])]

ExperimentId = Annotated[
    str, Path(pattern=r"^[^\x00]+$", max_length=100, examples=["exp_7k2m9x4p0q8r1s6t3v5w"])
]


def dataset_or_404(session: Session, dataset_id: str) -> Dataset:
    """The dataset with this id.

    Raises:
        Problem: 404.
    """
    found = find_dataset(session, dataset_id)
    if found is None:
        raise not_found("dataset", dataset_id)
    return found


def generations_or_404(session: Session, generations_id: str) -> Dataset:
    """The imported generations with this id.

    Raises:
        Problem: 404.
    """
    found = find_generations(session, generations_id)
    if found is None:
        raise not_found("generations", generations_id)
    return found


def job_or_404(session: Session, job_id: str) -> Job:
    """The job with this id.

    Raises:
        Problem: 404.
    """
    found = find_job(session, job_id)
    if found is None:
        raise not_found("job", job_id)
    return found


def experiment_or_404(session: Session, experiment_id: str) -> Experiment:
    """The experiment with this id, its jobs and their stages loaded.

    Raises:
        Problem: 404.
    """
    found = find_experiment(session, experiment_id)
    if found is None:
        raise not_found("experiment", experiment_id)
    return found
