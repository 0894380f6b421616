"""An experiment's table: each arm's figures by subset and in total, and how its baseline differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from deft_engine.experiments.statistics import (
    Bootstrap,
    Estimate,
    Floats,
    corpus_bleu,
    holm,
    perplexity,
)
from deft_engine.sample_scores import SampleScores

TOTAL = "Total"
_OF_SUMS = {"bleu": corpus_bleu, "perplexity": perplexity}  # of those in ``sample_scores.SUMMED``
Seed = int | None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One job's evaluation."""

    scores: SampleScores
    signatures: Mapping[str, str]
    """Figure -> how it was computed: of what data, by which model, with which decoding and versions."""
    figures: Mapping[str, Mapping[str, float | None]]
    """Subset or ``Total`` -> figure -> its value."""


@dataclass(frozen=True, slots=True)
class ArmRuns:
    """An arm and what its jobs have been evaluated to so far."""

    name: str
    baseline: str | None
    runs: Mapping[Seed, Evaluated]
    """By seed; an arm that is evaluated as it is has the one seed None."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The arm's figure minus the baseline's, on the same prompts and seeds."""

    baseline: str
    value: float | None
    interval: tuple[float, float] | None
    """95%, by a bootstrap over samples with seeds as blocks."""
    p_value: float | None
    p_corrected: float | None
    """By Holm, over the arms that have a difference in this figure and subset."""
    n: int
    reason: str = ""
    """Why there is no value."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of an arm over a subset, or over all samples."""

    value: float | None
    """Mean over seeds."""
    sd: float | None
    """Standard deviation over seeds; null for fewer than two."""
    interval: tuple[float, float] | None
    """95%, by a bootstrap over samples; it does not hold what another seed would have changed."""
    n: int
    seeds: int
    signature: str
    difference: Difference | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ArmFigures:
    """A row of the table."""

    name: str
    baseline: str | None
    subsets: dict[str, dict[str, Figure]]
    total: dict[str, Figure]
    """Over all samples, which is not the mean of the subsets."""


def arm_figures(arms: Sequence[ArmRuns]) -> list[ArmFigures]:
    """The table, as far as jobs are done: an arm without any has no figures."""
    subsets = sorted({name for arm in arms for run in arm.runs.values() for name in run.scores.subsets})
    tables = {name: _group(arms, name) for name in [*subsets, TOTAL]}
    return [
        ArmFigures(
            name=arm.name,
            baseline=arm.baseline,
            subsets={name: tables[name][number] for name in subsets if tables[name][number]},
            total=tables[TOTAL][number],
        )
        for number, arm in enumerate(arms)
    ]


@dataclass(slots=True)
class _Row:
    """An arm's runs within one group of samples."""

    arm: ArmRuns
    runs: dict[Seed, Evaluated]
    ids: list[str]
    figures: dict[str, Figure] = field(default_factory=dict)

    def names(self) -> list[str]:
        first = next(iter(self.runs.values()))
        return list(first.signatures)

    def values(self, seed: Seed, name: str) -> Floats | None:
        """``[samples]`` of a mean, or ``[samples, width]`` of sums; None where an answer has none."""
        found = self.runs[seed].scores.values.get(name)
        return None if found is None or not np.isfinite(found).all() else found


def _group(arms: Sequence[ArmRuns], subset: str) -> list[dict[str, Figure]]:
    """Figures of each arm over the samples of a subset."""
    rows = [_row(arm, subset) for arm in arms]
    by_name = {row.arm.name: row for row in rows}
    present = [row for row in rows if row.runs and row.ids]
    names = dict.fromkeys(name for row in present for name in row.names())
    for size in sorted({len(row.ids) for row in present}):
        _estimate([row for row in present if len(row.ids) == size], list(names), by_name, size, subset)
    for name in names:
        _correct(present, name)
    return [row.figures for row in rows]


def _row(arm: ArmRuns, subset: str) -> _Row:
    runs = {seed: _of_subset(run, subset) for seed, run in arm.runs.items()}
    ids = next((run.scores.ids for run in runs.values()), [])
    return _Row(arm, {seed: run for seed, run in runs.items() if run.scores.ids == ids}, ids)


def _of_subset(run: Evaluated, subset: str) -> Evaluated:
    if subset == TOTAL:
        return run
    scores = run.scores
    inside = np.array([name == subset for name in scores.subsets], dtype=bool)
    kept = SampleScores(
        ids=[sample for sample, kept in zip(scores.ids, inside, strict=True) if kept],
        subsets=[subset] * int(inside.sum()),
        values={name: values[inside] for name, values in scores.values.items()},
    )
    return replace(run, scores=kept)


def _estimate(
    rows: Sequence[_Row], names: Sequence[str], by_name: Mapping[str, _Row], samples: int, subset: str
) -> None:
    """Fill in the figures of rows with so many samples, all from the same resamples."""
    bootstrap = Bootstrap(samples)
    asked: list[tuple[_Row, str, int, int | None, str]] = []
    for name in names:
        statistics = {id(row): _statistics(bootstrap, row, name) for row in rows}
        for row in rows:
            own = statistics[id(row)]
            if not own:
                row.figures[name] = _bare_figure(row, name, subset)
                continue
            other = by_name.get(row.arm.baseline or "")
            shared, reason = _comparable(row, other, statistics, name)
            number = bootstrap.add(partial(_mean, list(own.values())))
            difference = None
            if shared:
                pairs = [(own[a], statistics[id(other)][b]) for a, b in shared]
                difference = bootstrap.add(partial(_mean_difference, pairs))
            asked.append((row, name, number, difference, reason))
    if not asked:
        return
    estimates = bootstrap.estimates()
    for row, name, number, difference, reason in asked:
        compared = estimates[difference] if difference is not None else None
        row.figures[name] = _figure(row, name, estimates[number], compared, reason)


Sums = Callable[[Floats], Floats]


def _statistics(bootstrap: Bootstrap, row: _Row, name: str) -> dict[Seed, Sums]:
    """Of each seed the figure as a function of sums; none where any seed lacks a value."""
    values = {seed: row.values(seed, name) for seed in row.runs if name in row.runs[seed].signatures}
    if any(found is None for found in values.values()):
        return {}
    return {
        seed: partial(_of_columns, name, bootstrap.columns(found), bootstrap.samples)
        for seed, found in values.items()
        if found is not None
    }


def _of_columns(name: str, columns: slice, samples: int, sums: Floats) -> Floats:
    own = sums[..., columns]
    return _OF_SUMS[name](own) if name in _OF_SUMS else own[..., 0] / samples


def _mean(statistics: Sequence[Sums], sums: Floats) -> Floats:
    return np.asarray(sum(statistic(sums) for statistic in statistics) / len(statistics))


def _mean_difference(pairs: Sequence[tuple[Sums, Sums]], sums: Floats) -> Floats:
    return np.asarray(sum(own(sums) - other(sums) for own, other in pairs) / len(pairs))


def _comparable(
    row: _Row, other: _Row | None, statistics: Mapping[int, Mapping[Seed, Sums]], name: str
) -> tuple[list[tuple[Seed, Seed]], str]:
    """Seeds of an arm and of its baseline that are compared, or why there are none."""
    if other is None:
        return [], ""
    theirs = statistics.get(id(other), {})
    shared = [(a, b) for a in row.runs for b in theirs if a == b or a is None or b is None]
    signatures = {run.signatures.get(name) for run in (*row.runs.values(), *other.runs.values())}
    checks = (
        (not other.runs, "the baseline is not evaluated yet"),
        (row.ids != other.ids, "the baseline was evaluated on other samples"),
        (not theirs, "the baseline has no such figure"),
        (not shared, "no seed of both is evaluated yet"),
        (len(signatures) > 1, "the figures were computed in different ways: their signatures differ"),
    )
    reason = next((text for wrong, text in checks if wrong), "")
    return ([] if reason else shared), reason


def _figure(row: _Row, name: str, estimate: Estimate, compared: Estimate | None, reason: str) -> Figure:
    of_seeds = [_observed(row, seed, name) for seed in row.runs]
    difference = None
    if row.arm.baseline is not None:
        difference = Difference(
            baseline=row.arm.baseline,
            value=compared.value if compared else None,
            interval=compared.interval if compared else None,
            p_value=compared.p_value if compared else None,
            p_corrected=None,
            n=len(row.ids),
            reason=reason,
        )
    return Figure(
        value=estimate.value,
        sd=float(np.std(of_seeds, ddof=1)) if len(of_seeds) > 1 else None,
        interval=estimate.interval,
        n=len(row.ids),
        seeds=len(of_seeds),
        signature=_signature(row, name),
        difference=difference,
    )


def _observed(row: _Row, seed: Seed, name: str) -> float:
    values = row.values(seed, name)
    assert values is not None
    return float(_OF_SUMS[name](values.sum(axis=0)) if name in _OF_SUMS else values.mean())


def _bare_figure(row: _Row, name: str, subset: str) -> Figure:
    """A figure without values of each answer: the mean over seeds, and no interval."""
    values = [run.figures.get(subset, {}).get(name) for run in row.runs.values()]
    known = [value for value in values if value is not None]
    return Figure(
        value=float(np.mean(known)) if known and len(known) == len(values) else None,
        sd=float(np.std(known, ddof=1)) if len(known) == len(values) > 1 else None,
        interval=None,
        n=len(row.ids),
        seeds=len(row.runs),
        signature=_signature(row, name),
        reason="not every answer has a value of its own, so there is no interval",
    )


def _signature(row: _Row, name: str) -> str:
    """How the figure was computed; where seeds differ in that, each way."""
    found = dict.fromkeys(run.signatures.get(name, "") for run in row.runs.values())
    return " / ".join(filter(None, found))


def _correct(rows: Sequence[_Row], name: str) -> None:
    """Holm's correction over the arms that have a difference."""
    family = [
        (row, difference, difference.p_value)
        for row in rows
        if name in row.figures
        and (difference := row.figures[name].difference) is not None
        and difference.p_value is not None
    ]
    corrected = holm([p_value for _, _, p_value in family])
    for (row, difference, _), p_corrected in zip(family, corrected, strict=True):
        whole = replace(difference, p_corrected=p_corrected)
        row.figures[name] = replace(row.figures[name], difference=whole)
