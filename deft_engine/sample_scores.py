"""``sample_scores.parquet``: what each answer adds to the figures, so that arms can be compared on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from deft_engine.evaluators import Evaluator, Rated
from deft_engine.evaluators.bleu import corpus_counts
from deft_engine.evaluators.perplexity import perplexity_sums

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Summed:
    """A figure that is made of sums over answers and is no mean of them."""

    column: str
    width: int
    of: Callable[[Sequence[Rated]], Sequence[Sequence[float] | None]]
    """``[answers, width]``: what each answer adds."""


SUMMED = {
    "bleu": Summed("bleu_counts", 10, corpus_counts),
    "perplexity": Summed("perplexity_sums", 2, perplexity_sums),
}
"""Figure -> what it is made of."""


@dataclass(frozen=True, slots=True)
class SampleScores:
    """The answers of one evaluation, in the order of its generations."""

    ids: list[str]
    subsets: list[str]
    values: dict[str, Floats]
    """Figure that is a mean -> ``[samples]``; one of ``SUMMED`` -> ``[samples, width]``.

    NaN where an answer has none."""


def write_sample_scores(path: Path, evaluators: Sequence[Evaluator], answers: Sequence[Rated]) -> None:
    """A row per answer: ``sample_id``, ``subset``, a column for each figure that is a mean over answers, and
    a column of numbers to add up for each of ``SUMMED``."""
    columns: dict[str, pa.Array] = {
        "sample_id": pa.array([answer.generation.sample_id for answer in answers], pa.string()),
        "subset": pa.array([answer.generation.subset for answer in answers], pa.string()),
    }
    for evaluator in evaluators:
        for name, values in evaluator.per_answer(answers).items():
            columns[name] = pa.array(values, pa.float64())
        for name in SUMMED.keys() & set(evaluator.figures):
            summed = SUMMED[name]
            columns[summed.column] = pa.array(summed.of(answers), pa.list_(pa.float64(), summed.width))
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_sample_scores(path: Path) -> SampleScores:
    """Read what :func:`write_sample_scores` wrote."""
    table = pq.read_table(path)
    figures = {summed.column: name for name, summed in SUMMED.items()}
    values: dict[str, Floats] = {}
    for column in table.column_names:
        if column in ("sample_id", "subset"):
            continue
        name = figures.get(column, column)
        values[name] = _numbers(table.column(column).combine_chunks(), SUMMED.get(name))
    return SampleScores(
        ids=table.column("sample_id").to_pylist(),
        subsets=table.column("subset").to_pylist(),
        values=values,
    )


def _numbers(column: pa.Array, summed: Summed | None) -> Floats:
    """``[samples]``, or ``[samples, width]``; NaN for null."""
    if summed is None:
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
    nothing = [float("nan")] * summed.width
    rows = [nothing if row is None else row for row in column.to_pylist()]
    return np.array(rows, dtype=np.float64).reshape(len(rows), summed.width)
