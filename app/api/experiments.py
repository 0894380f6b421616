"""Experiments: sent, listed, shown, cancelled."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter
from sqlalchemy.orm import Session
from starlette.responses import Response

from app.api.dependencies import After, Limit, Researcher, Transaction, Viewer, problems
from app.api.lookup import ExperimentId, experiment_or_404
from app.api.pages import newest_first
from app.api.schemas import Answer, Page
from app.db.job_stages import current_stage
from app.db.models import Experiment, JobStatus
from app.db.transitions import IllegalMove
from app.errors import FieldError, Problem, invalid_request
from app.experiments.creation import WITH_JOBS, cancel_experiment, create_experiment
from app.experiments.status import Cost, cost_of, experiment_status
from app.idempotency import Idempotent, created
from deft_engine.experiments.arms import InvalidExperiment
from deft_engine.experiments.spec import ExperimentSpec

router = APIRouter(prefix="/experiments", tags=["experiments"])


class ArmJobView(Answer):
    """A job of an arm."""

    id: str
    seed: int | None
    """null: a model that is evaluated as it is."""
    status: JobStatus
    stage: str | None
    """The stage that runs or failed."""


class ArmView(Answer):
    """A row of the table."""

    name: str
    kind: Literal["align", "evaluate"]
    baseline: str | None
    """The arm that it is compared with."""
    jobs: list[ArmJobView]


class ExperimentView(Answer):
    """An experiment; its status follows from its jobs'."""

    id: str
    object: Literal["experiment"] = "experiment"
    name: str
    status: JobStatus
    dataset: str
    eval_dataset: str
    seeds: list[int]
    baseline: str | None
    arms: list[ArmView]
    cost: Cost
    """Of all its stage runs that are done, those that jobs share counted once."""
    spec: dict[str, Any]
    """With what the preset gave."""
    warnings: list[str]
    """Of all its jobs, each once."""
    created_at: datetime
    finished_at: datetime | None
    links: dict[str, str]


@router.post(
    "",
    operation_id="create_experiment",
    status_code=201,
    response_model=ExperimentView,
    responses=problems(409),
)
def send_experiment(
    spec: ExperimentSpec, session: Transaction, caller: Researcher, once: Idempotent
) -> Response:
    """Send an experiment: a job for each arm and seed. Stages that are equal are carried out once."""

    def create() -> Response:
        try:
            experiment = create_experiment(session, spec, caller.key_id)
        except InvalidExperiment as error:
            raise invalid_request([FieldError(**fault._asdict()) for fault in error.faults]) from error
        return created(_shown(session, experiment.id), f"/experiments/{experiment.id}")

    return once.answer(session, caller, create)


@router.get("", operation_id="list_experiments", responses=problems())
def list_experiments(
    session: Transaction, caller: Viewer, limit: Limit = 20, after: After = None
) -> Page[ExperimentView]:
    """Experiments, newest first."""
    found, has_more = newest_first(session, Experiment, limit=limit, after=after, options=(WITH_JOBS,))
    return Page(data=[view_experiment(experiment) for experiment in found], has_more=has_more)


@router.get("/{experiment_id}", operation_id="get_experiment", responses=problems())
def get_experiment(experiment_id: ExperimentId, session: Transaction, caller: Viewer) -> ExperimentView:
    """One experiment: its arms, the state of each seed's job, and what it has cost so far."""
    return _shown(session, experiment_id)


@router.post("/{experiment_id}/cancel", operation_id="cancel_experiment", responses=problems(409))
def cancel(experiment_id: ExperimentId, session: Transaction, caller: Researcher) -> ExperimentView:
    """End every job of the experiment; a stage that a live job outside of it needs goes on."""
    try:
        cancel_experiment(session, experiment_or_404(session, experiment_id))
    except IllegalMove as error:
        raise Problem(
            409,
            "illegal_move",
            "The experiment's status does not allow it",
            f"cannot cancel an experiment that is {error.status}; nothing is allowed",
            extra={"experiment_status": error.status, "allowed": []},
        ) from error
    session.flush()
    return _shown(session, experiment_id)


def view_experiment(experiment: Experiment) -> ExperimentView:
    """An experiment whose jobs and stages are loaded."""
    spec = ExperimentSpec.of_resolved(experiment.spec)
    jobs = [place.job for place in experiment.jobs]
    ended = [job.finished_at for job in jobs]
    address = f"/experiments/{experiment.id}"
    return ExperimentView(
        id=experiment.id,
        name=experiment.name,
        status=experiment_status([job.status for job in jobs]),
        dataset=spec.dataset,
        eval_dataset=spec.eval_dataset,
        seeds=list(spec.seeds),
        baseline=spec.baseline,
        arms=[
            ArmView(
                name=arm.name, kind=arm.kind, baseline=spec.baseline_of(arm), jobs=_jobs(experiment, number)
            )
            for number, arm in enumerate(spec.arms)
        ],
        cost=cost_of(stage.stage_run for job in jobs for stage in job.stages),
        spec=experiment.spec,
        warnings=list(dict.fromkeys(str(text) for job in jobs for text in job.warnings)),
        created_at=experiment.created_at,
        finished_at=max(time for time in ended if time) if all(ended) else None,
        links={"self": address} | {name: f"{address}/{name}" for name in ("results", "report.html", "view")},
    )


def _jobs(experiment: Experiment, arm: int) -> list[ArmJobView]:
    found = []
    for place in experiment.jobs:
        if place.arm == arm:
            current = current_stage([stage.stage_run for stage in place.job.stages])
            stage = current.stage if current else None
            found.append(ArmJobView(id=place.job_id, seed=place.seed, status=place.job.status, stage=stage))
    return found


def _shown(session: Session, experiment_id: str) -> ExperimentView:
    return view_experiment(experiment_or_404(session, experiment_id))
