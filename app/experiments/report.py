"""An experiment's report: its results, and the prompts on which two arms differ most."""

from __future__ import annotations

import numpy as np
from sqlalchemy import select

from app.db.models import Artifact, JobStage
from app.db.session import transaction
from app.experiments.collection import CollectedArm, EvaluatedJob
from app.experiments.results import ExperimentResults
from app.experiments.surroundings import surroundings
from app.store import get_store
from deft_engine.data.generations import read_generations
from deft_engine.experiments.report import Case, render_experiment_report
from deft_engine.report import shortened
from deft_engine.sample_scores import read_sample_scores
from deft_engine.types import Generation

_CASES_OF_AN_ARM = 2
_MOST_CASES = 12
_TELLING = ("reward", "bleu_pro_char")
"""Figures of an answer that cases are chosen by: the first that is there."""


def experiment_report(results: ExperimentResults, *, cases: bool) -> str:
    """The page ``report.html``, of what is evaluated so far; without ``cases`` it has no text of the data."""
    with transaction() as session:
        beside = surroundings(session, results.experiment)
    first_jobs = {place.arm: place.job for place in reversed(results.experiment.jobs)}
    return render_experiment_report(
        results.experiment.id,
        results.experiment.spec,
        results.arms,
        [first_jobs[number].spec for number in range(len(results.arms))],
        _cases(results.collected) if cases else [],
        results.warnings,
        beside,
        complete=results.complete,
    )


def _cases(arms: list[CollectedArm]) -> list[Case]:
    by_name = {arm.name: arm for arm in arms}
    found: list[Case] = []
    for arm in arms:
        pair = _first_pair(arm, by_name.get(arm.baseline or ""))
        if pair is not None and len(found) < _MOST_CASES:
            found += _cases_of(arm, *pair)
    return found


def _first_pair(arm: CollectedArm, other: CollectedArm | None) -> tuple[EvaluatedJob, EvaluatedJob] | None:
    """The first seed that an arm and its baseline have in common."""
    pairs = ((a, b) for a in arm.jobs for b in (other.jobs if other else ()))
    return next(((a, b) for a, b in pairs if a.seed == b.seed or None in (a.seed, b.seed)), None)


def _cases_of(arm: CollectedArm, own: EvaluatedJob, other: EvaluatedJob) -> list[Case]:
    scores, others = (read_sample_scores(get_store().get(job.scores_sha256)) for job in (own, other))
    figure = next((name for name in _TELLING if name in scores.values and name in others.values), None)
    if figure is None or scores.ids != others.ids:
        return []
    values, other_values = scores.values[figure], others.values[figure]
    gaps = np.nan_to_num(np.abs(values - other_values))
    chosen = [int(i) for i in np.argsort(-gaps, kind="stable")[:_CASES_OF_AN_ARM] if gaps[i] > 0]
    answers, other_answers = _generations(own.job_id), _generations(other.job_id)
    return [
        Case(
            figure=figure,
            subset=answers[i].subset,
            prompt=shortened("\n\n".join(f"{turn.role}: {turn.content}" for turn in answers[i].prompt)),
            arm=arm.name,
            response=shortened(answers[i].response),
            value=float(values[i]),
            baseline=arm.baseline or "",
            baseline_response=shortened(other_answers[i].response),
            baseline_value=float(other_values[i]),
        )
        for i in chosen
    ]


def _generations(job_id: str) -> list[Generation]:
    """A job's answers, in the order of its scores."""
    query = (
        select(Artifact.sha256)
        .join(JobStage, JobStage.stage_run_id == Artifact.stage_run_id)
        .where(JobStage.job_id == job_id, Artifact.name == "generations.jsonl")
    )
    with transaction() as session:
        sha256 = session.scalars(query).one()
    return list(read_generations(get_store().get(sha256)))
