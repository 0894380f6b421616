"""Stage ``evaluate``: figures of generations, per subset and in total (section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from deft_engine.canonical import canonical_json
from deft_engine.data.generations import read_generations
from deft_engine.errors import DataError
from deft_engine.evaluators import Evaluator, Measure, Rated
from deft_engine.run import StageContext
from deft_engine.sample_scores import write_sample_scores
from deft_engine.stages import EvaluateSpec
from deft_engine.types import Generation

_CURVES = {
    "reward": "eval/reward",
    "bleu": "eval/bleu",
    "divergence": "eval/divergence",
    "perplexity": "eval/perplexity",
}
"""Figure -> metric of its total."""


def run(context: StageContext[EvaluateSpec]) -> dict[str, Any]:
    """Write ``results.json``: ``{"subsets": {name: figures}, "total": figures, "warnings"}``, and each
    answer's part of them into ``sample_scores.parquet``.

    Figures map a name to a score (``value, n, signature, reason``). The total is over all samples, which is
    not the mean of the subsets' figures.

    Raises:
        DataError: there are no generations.
        ModelError: a model that an evaluator needs is missing or cannot be used.
    """
    generations = list(read_generations(context.path("generations")))
    if not generations:
        raise DataError("there are no generations to evaluate", hint="evaluate on a dataset with samples")
    evaluators = context.spec.evaluators
    answers = _rated(context, generations)
    subsets = sorted({generation.subset for generation in generations})
    results: dict[str, Any] = {
        "subsets": {
            name: figures(evaluators, [a for a in answers if a.generation.subset == name]) for name in subsets
        },
        "total": figures(evaluators, answers),
        "warnings": list(context.spec.warnings),
    }
    for warning in context.spec.warnings:
        context.events.log(warning, level="warning")
    totals = {metric: results["total"].get(figure, {}).get("value") for figure, metric in _CURVES.items()}
    context.events.metrics(0, {metric: value for metric, value in totals.items() if value is not None})
    context.events.progress(len(generations), len(generations))
    (context.out / "results.json").write_bytes(canonical_json(results))
    write_sample_scores(context.out / "sample_scores.parquet", evaluators, answers)
    return results


def figures(evaluators: Sequence[Evaluator], answers: Sequence[Rated]) -> dict[str, dict[str, Any]]:
    """Every evaluator's figures of a group of answers, as JSON."""
    scores = {name: score for evaluator in evaluators for name, score in evaluator(answers).items()}
    return {name: score.as_json() for name, score in scores.items()}


def _rated(context: StageContext[EvaluateSpec], generations: Sequence[Generation]) -> list[Rated]:
    """The generations with every measure that some evaluator needs."""
    needed = dict.fromkeys(need for evaluator in context.spec.evaluators for need in evaluator.needs)
    if not needed:
        return [Rated(generation) for generation in generations]
    from deft_engine.measures import MEASURES  # loads torch

    measured = {name: MEASURES[name](context, generations) for name in needed}
    nothing = [None] * len(generations)
    columns = (measured.get(name, nothing) for name in get_args(Measure))  # in the order of Rated's fields
    return [Rated(*row) for row in zip(generations, *columns, strict=True)]
