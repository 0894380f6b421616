"""An experiment's results: the table, what each arm cost, and how complete both are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.db.models import Experiment, Job
from app.db.reward_model_quality import reward_model_warnings, without_stages
from app.db.session import transaction
from app.experiments.collection import CollectedArm, collect, table_of
from app.experiments.creation import find_experiment
from app.experiments.status import ArmCost, arm_cost
from deft_engine.experiments.results import ArmFigures, Figure
from deft_engine.experiments.spec import ExperimentSpec


@dataclass(frozen=True, slots=True)
class ArmResults:
    """A row: its figures by subset and over all samples, and its cost."""

    name: str
    kind: Literal["align", "evaluate"]
    dataset: str | None
    """What it was trained on; null for a model that is evaluated as it is."""
    baseline: str | None
    seeds: list[int | None]
    """Those that are evaluated."""
    missing: int
    """Jobs that are not evaluated, yet or ever."""
    subsets: dict[str, dict[str, Figure]]
    total: dict[str, Figure]
    cost: ArmCost


@dataclass(frozen=True, slots=True)
class ExperimentResults:
    """All rows, in the order of the arms."""

    experiment: Experiment
    spec: ExperimentSpec
    arms: list[ArmResults]
    collected: list[CollectedArm]
    warnings: list[str]

    @property
    def complete(self) -> bool:
        """Whether every job is evaluated."""
        return not any(arm.missing for arm in self.arms)


def experiment_results(experiment_id: str) -> ExperimentResults | None:
    """The results so far, or None where there is no such experiment. Figures are computed outside of the
    transaction that reads what they are made of."""
    with transaction() as session:
        experiment = find_experiment(session, experiment_id)
        if experiment is None:
            return None
        collected = collect(session, experiment)
        runs = {stage.stage_run_id for place in experiment.jobs for stage in place.job.stages}
        known = reward_model_warnings(session, runs)
    figures = table_of(collected)
    spec = ExperimentSpec.of_resolved(experiment.spec)
    arms = [
        _arm(spec, number, _jobs(experiment, number), collected[number], figures[number])
        for number in range(len(spec.arms))
    ]
    reasons = {without_stages(text) for text in known}  # a job names its own stages alone
    of_jobs = (text for place in experiment.jobs for text in _warnings(place.job))
    told = [text for text in of_jobs if without_stages(text) not in reasons] + known
    return ExperimentResults(experiment, spec, arms, collected, list(dict.fromkeys(told)))


def _arm(
    spec: ExperimentSpec, number: int, jobs: list[Job], collected: CollectedArm, figures: ArmFigures
) -> ArmResults:
    arm = spec.arms[number]
    return ArmResults(
        name=arm.name,
        kind=arm.kind,
        dataset=(arm.dataset or spec.dataset) if arm.kind == "align" else None,
        baseline=figures.baseline,
        seeds=[job.seed for job in collected.jobs],
        missing=len(jobs) - len(collected.jobs),
        subsets=figures.subsets,
        total=figures.total,
        cost=arm_cost(jobs),
    )


def _jobs(experiment: Experiment, arm: int) -> list[Job]:
    return [place.job for place in experiment.jobs if place.arm == arm]


def _warnings(job: Job) -> list[str]:
    return [*map(str, job.warnings), *(job.result or {}).get("warnings", [])]
