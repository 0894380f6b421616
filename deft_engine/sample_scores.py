"""``sample_scores.parquet``: what each answer adds to the figures, so that arms can be compared on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from deft_engine.evaluators import Bleu, Evaluator, Rated
from deft_engine.evaluators.bleu import corpus_counts

Floats = npt.NDArray[np.float64]

COUNTS = "bleu_counts"
COUNTED = 10
"""Numbers that corpus BLEU adds up for an answer, see ``corpus_counts``."""


@dataclass(frozen=True, slots=True)
class SampleScores:
    """The answers of one evaluation, in the order of its generations."""

    ids: list[str]
    subsets: list[str]
    values: dict[str, Floats]
    """Figure that is a mean -> ``[samples]``, NaN where an answer has none."""
    counts: Floats | None
    """``[samples, 10]``, of which corpus BLEU is made."""


def write_sample_scores(path: Path, evaluators: Sequence[Evaluator], answers: Sequence[Rated]) -> None:
    """A row per answer: ``sample_id``, ``subset``, a column for each figure that is a mean over answers, and
    ``bleu_counts`` where there is corpus BLEU."""
    columns: dict[str, pa.Array] = {
        "sample_id": pa.array([answer.generation.sample_id for answer in answers], pa.string()),
        "subset": pa.array([answer.generation.subset for answer in answers], pa.string()),
    }
    for evaluator in evaluators:
        for name, values in evaluator.per_answer(answers).items():
            columns[name] = pa.array(values, pa.float64())
    if any(isinstance(evaluator, Bleu) for evaluator in evaluators):
        columns[COUNTS] = pa.array(corpus_counts(answers), pa.list_(pa.int64(), COUNTED))
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_sample_scores(path: Path) -> SampleScores:
    """Read what :func:`write_sample_scores` wrote."""
    table = pq.read_table(path)
    means = [name for name in table.column_names if name not in ("sample_id", "subset", COUNTS)]
    counts = None
    if COUNTS in table.column_names:
        flat = table.column(COUNTS).combine_chunks().flatten().to_numpy()
        counts = flat.reshape(len(table), COUNTED).astype(np.float64)
    return SampleScores(
        ids=table.column("sample_id").to_pylist(),
        subsets=table.column("subset").to_pylist(),
        values={name: table.column(name).to_numpy().astype(np.float64) for name in means},
        counts=counts,
    )
