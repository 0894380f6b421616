"""The stage ``grade``: each subset sorted by score and cut into levels A, B, C (section 3.1)."""

from __future__ import annotations

import json
import math
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from deft_engine.data.samples import read_index
from deft_engine.errors import DataError
from deft_engine.graders.grader import SampleScore
from deft_engine.ranking import ranks_by_reward
from deft_engine.run import StageContext
from deft_engine.scores import ScoreTable, read_score_table, require_same_samples
from deft_engine.stages import GradeSpec, RankBy
from deft_engine.types import Level

_SCHEMA = pa.schema(
    [("sample_id", pa.string()), ("subset", pa.string()), ("score", pa.float64()), ("level", pa.string())]
)
_BINS = 40
Levels = npt.NDArray[np.str_]


def run(context: StageContext[GradeSpec]) -> dict[str, Any]:
    """Grade the inputs ``samples`` and ``scores``; write ``levels.parquet`` and ``grading.json``.

    Raises:
        DataError: the scores belong to other samples, or a reward that is needed is missing.
    """
    spec = context.spec
    table = read_score_table(context.path("scores"))
    require_same_samples(table.ids, read_index(context.path("samples")), "the scores")
    scores = sample_scores(table, spec.rank_by, spec.score)
    context.stop.check()
    levels, histograms = _grade_subsets(table, scores, spec)
    columns = [
        pa.array(table.ids, pa.string()),
        pa.array(table.subsets, pa.string()),
        pa.array(scores, pa.float64()),
        pa.array(levels.tolist(), pa.string()),
    ]
    pq.write_table(
        pa.Table.from_arrays(columns, schema=_SCHEMA), context.out / "levels.parquet", compression="zstd"
    )
    (context.out / "grading.json").write_text(json.dumps(histograms, sort_keys=True, allow_nan=False))
    context.events.progress(len(scores), len(scores))
    return {
        "levels": _count(levels),
        "subsets": {
            name: {level.value: sum(histogram["counts"][level.value]) for level in Level}
            for name, histogram in histograms.items()
        },
        "disagreement": disagreement(table),
    }


def read_levels(path: Path) -> dict[str, Level]:
    """Sample id -> level."""
    ids, levels = read_level_columns(path)
    return dict(zip(ids, map(Level, levels.tolist()), strict=True))


def read_level_columns(path: Path) -> tuple[list[str], Levels]:
    """The ids and the levels ("A", "B", "C") of all samples, in the order of ``samples.parquet``."""
    table = pq.read_table(path, columns=["sample_id", "level"], use_threads=False)
    return table["sample_id"].to_pylist(), np.array(table["level"].to_pylist(), dtype=np.str_)


def level_sizes(samples: int, a: float, c: float) -> tuple[int, int]:
    """How many of ``samples`` are Level A and Level C: ``ceil(a/100*n)`` and ``ceil(c/100*n)``.

    Computed from the decimal text of ``a`` and ``c``, since 3.73 is no binary fraction. In a subset so small
    that the two would overlap, Level A comes first.
    """
    first = min(math.ceil(Fraction(str(a)) / 100 * samples), samples)
    last = min(math.ceil(Fraction(str(c)) / 100 * samples), samples - first)
    return first, last


def cut_levels(scores: npt.NDArray[np.float64], a: float, c: float) -> Levels:
    """Levels of one subset's scores ``[n]``: the highest ``a`` percent A, the lowest ``c`` percent C, else B.

    Of equal scores the earlier sample counts as better.
    """
    order = np.argsort(-scores, kind="stable")
    size_a, size_c = level_sizes(len(scores), a, c)
    levels = np.full(len(scores), Level.B.value)
    levels[order[:size_a]] = Level.A.value
    levels[order[len(scores) - size_c :]] = Level.C.value
    return levels


def sample_scores(table: ScoreTable, rank_by: RankBy, score: SampleScore = "best") -> npt.NDArray[np.float64]:
    """The score of each sample ``[n]``, the highest being the best; see ``SampleScore``.

    Raises:
        DataError: a reward that is needed is missing.
    """
    starts, lengths = table.offsets[:-1], np.diff(table.offsets)
    by_reward = np.where(lengths == 2, ranks_by_reward(2, rank_by), ranks_by_reward(3, rank_by))
    first, last = table.rewards[starts], table.rewards[table.offsets[1:] - 1]
    # np.maximum and np.minimum pass NaN on: a missing reward shows
    highest, lowest = (f.reduceat(table.rewards, starts) for f in (np.maximum, np.minimum))
    match score:
        case "best":
            scores = np.where((lengths == 2) & ~by_reward, first, highest)
        case "first":
            scores = first
        case "margin" | "closeness":
            scores = np.where(by_reward, highest - lowest, first - last)
    _require_scores(table, scores)
    return -scores if score == "closeness" else scores


def _require_scores(table: ScoreTable, scores: npt.NDArray[np.float64]) -> None:
    missing = np.flatnonzero(np.isnan(scores))
    if len(missing):
        raise DataError(
            f'sample "{table.ids[missing[0]]}" (number {missing[0] + 1}) lacks a reward that grading needs',
            hint="set deft.grader.scope to all, or deft.rank_by to annotation",
            code="missing_score",
        )


def disagreement(table: ScoreTable) -> float | None:
    """Share of the fully scored samples whose rewards contradict the annotated order; None without any.

    A sample contradicts where some response has a higher reward than the one annotated just above it.
    """
    starts, lengths = table.offsets[:-1], np.diff(table.offsets)
    scored = ~np.isnan(np.add.reduceat(table.rewards, starts))
    if not scored.any():
        return None
    rises = np.zeros(len(table.rewards), dtype=bool)
    rises[1:] = table.rewards[1:] > table.rewards[:-1]
    rises[starts] = False  # the response above belongs to another sample
    contradicted = np.zeros(len(lengths), dtype=bool)
    contradicted[np.repeat(np.arange(len(lengths)), lengths)[rises]] = True
    return float(contradicted[scored].mean())


def _grade_subsets(
    table: ScoreTable, scores: npt.NDArray[np.float64], spec: GradeSpec
) -> tuple[Levels, dict[str, dict[str, Any]]]:
    subsets, names = np.unique(np.array(table.subsets, dtype=object), return_inverse=True)
    levels = np.full(len(scores), Level.B.value)
    histograms: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(subsets.tolist()):
        members = np.flatnonzero(names == number)
        levels[members] = cut_levels(scores[members], spec.a, spec.c)
        histograms[name] = _histogram(scores[members], levels[members])
    return levels, histograms


def _histogram(scores: npt.NDArray[np.float64], levels: Levels) -> dict[str, Any]:
    """Counts per bin and level, the lowest score in A (``cut_a``) and the highest in C (``cut_c``)."""
    edges = np.histogram_bin_edges(scores, bins=_BINS)
    by_level = {level: scores[levels == level.value] for level in Level}
    best, worst = by_level[Level.A], by_level[Level.C]
    return {
        "edges": edges.tolist(),
        "counts": {
            level.value: np.histogram(part, bins=edges)[0].tolist() for level, part in by_level.items()
        },
        "cut_a": float(best.min()) if len(best) else None,
        "cut_c": float(worst.max()) if len(worst) else None,
        "n": len(scores),
    }


def _count(levels: Levels) -> dict[str, int]:
    counts = Counter(levels.tolist())
    return {level.value: counts[level.value] for level in Level}
