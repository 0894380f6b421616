"""What an experiment's report shows beside its table, from the database: data, studies and MT-Bench jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Experiment, Job, JobStatus, Study, StudySystem
from app.studies.results import results, systems_of
from app.studies.statistics import Outcome
from deft_engine.experiments.report_parts import Bench, DataRow, HumanRow, Surroundings
from deft_engine.experiments.results import TOTAL
from deft_engine.experiments.spec import ExperimentSpec

_ASPECTS = ("harmless", "helpful", "total")


def surroundings(session: Session, experiment: Experiment) -> Surroundings:
    """Of an experiment whose jobs and stages are loaded."""
    spec = ExperimentSpec.of_resolved(experiment.spec)
    names = {place.job_id: (spec.arms[place.arm].name, place.seed) for place in experiment.jobs}
    return Surroundings(
        data=list(_data(experiment)),
        people=list(_people(session, names)),
        benches=list(_benches(session, names)),
    )


def _data(experiment: Experiment) -> Iterator[DataRow]:
    jobs = [place.job for place in experiment.jobs if place.job.kind == "align"]
    evaluated: dict[str, Any] = next(
        (found for job in jobs if (found := _results(job).get("evaluate"))), {"subsets": {}, "total": {}}
    )
    for dataset in dict.fromkeys(job.spec["dataset"] for job in jobs):
        own = [job for job in jobs if job.spec["dataset"] == dataset]
        imported = next((found for job in own if (found := _results(job).get("import"))), None)
        if imported is None:
            continue
        graded: dict[str, Any] = next((found for job in own if (found := _results(job).get("grade"))), {})
        for subset, training in imported["subsets"].items():
            prompts = _prompts(evaluated["subsets"].get(subset))
            yield DataRow(dataset, subset, training, graded.get("subsets", {}).get(subset), prompts)
        yield DataRow(dataset, TOTAL, imported["samples"], graded.get("levels"), _prompts(evaluated["total"]))


def _results(job: Job) -> dict[str, Any]:
    """Stage -> its result; of two stages of one name the first, which works on the training data."""
    found: dict[str, Any] = {}
    for stage in job.stages:
        if stage.stage_run.result is not None:
            found.setdefault(stage.stage_run.stage, stage.stage_run.result)
    return found


def _prompts(figures: Mapping[str, Any] | None) -> int | None:
    """How many prompts a group of figures is made of; None where there is none."""
    return max((figure["n"] for figure in (figures or {}).values()), default=None)


def _people(session: Session, names: Mapping[str, tuple[str, int | None]]) -> Iterator[HumanRow]:
    """Unblinded studies of two of the jobs, in the order of their making."""
    query = (
        select(Study)
        .where(
            Study.unblinded_at.is_not(None),
            Study.id.in_(select(StudySystem.study_id).where(StudySystem.job_id.in_(names))),
        )
        .order_by(Study.created_at, Study.id)
    )
    for study in session.scalars(query):
        systems = systems_of(session, study.id)
        if len(systems) == 2 and all(system in names for system in systems):
            found = results(session, study)
            for aspect in _ASPECTS:
                outcome: Outcome | None = getattr(found, aspect)
                if outcome is not None and outcome.n:
                    yield _human(study.name, [names[system][0] for system in systems], aspect, outcome)


def _human(study: str, arms: list[str], aspect: str, outcome: Outcome) -> HumanRow:
    shares = (outcome.win.share, outcome.tie.share, outcome.lose.share)
    win, tie, lose = (share or 0.0 for share in shares)
    return HumanRow(study, arms[0], arms[1], aspect, outcome.n, win, tie, lose)


def _benches(session: Session, names: Mapping[str, tuple[str, int | None]]) -> Iterator[Bench]:
    """MT-Bench jobs that graded a model of one of the jobs, in the order of the arms."""
    order = {f"job:{job_id}": number for number, job_id in enumerate(names)}
    query = (
        select(Job)
        .where(
            Job.kind == "judge",
            Job.status == JobStatus.SUCCEEDED,
            Job.spec["model"]["base"].astext.in_(order),
        )
        .order_by(Job.created_at, Job.id)
    )
    graded = [job for job in session.scalars(query) if "turns" in (job.result or {}).get("judge", {})]
    for job in sorted(graded, key=lambda job: order[job.spec["model"]["base"]]):
        arm, seed = names[job.spec["model"]["base"].removeprefix("job:")]
        yield Bench(arm, seed, (job.result or {})["judge"])
