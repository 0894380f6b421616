"""``scores.parquet``: a reward per response, in the annotated order; null where none was needed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from deft_engine.data.samples import SampleIndex
from deft_engine.errors import DataError

_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("subset", pa.string()),
        ("rank", pa.int32()),
        ("reward", pa.float64()),
    ]
)
_ROW_GROUP = 100_000


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Rewards of all samples by columns, in the order of ``samples.parquet``."""

    ids: list[str]
    subsets: list[str]
    offsets: npt.NDArray[np.int64]
    """``[samples + 1]``: sample i's rewards are ``rewards[offsets[i]:offsets[i + 1]]``."""
    rewards: npt.NDArray[np.float64]
    """``[responses]``, NaN where there is none."""


def write_scores(path: Path, index: SampleIndex, rewards: Iterable[float | None]) -> None:
    """Write one reward per response of the indexed samples, in their order.

    Raises:
        ValueError: there are not as many rewards as responses.
    """
    lengths = np.diff(index.offsets)
    values = pa.array(rewards, pa.float64())
    starts = np.repeat(index.offsets[:-1], lengths)
    owners = pa.array(np.repeat(np.arange(len(lengths)), lengths))
    if len(values) != len(starts):
        raise ValueError(f"{len(values)} rewards for {len(starts)} responses")
    table = pa.Table.from_arrays(
        [
            pa.array(index.ids, pa.string()).take(owners),
            pa.array(index.subsets, pa.string()).take(owners),
            pa.array(np.arange(len(starts)) - starts, pa.int32()),
            values,
        ],
        schema=_SCHEMA,
    )
    pq.write_table(table, path, compression="zstd", row_group_size=_ROW_GROUP)


def read_score_table(path: Path) -> ScoreTable:
    """All scores by columns."""
    table = pq.read_table(path, schema=_SCHEMA, use_threads=False).combine_chunks()
    starts = np.flatnonzero(table["rank"].to_numpy() == 0)
    return ScoreTable(
        ids=table["sample_id"].take(starts).to_pylist(),
        subsets=table["subset"].take(starts).to_pylist(),
        offsets=np.append(starts, table.num_rows).astype(np.int64),
        rewards=table["reward"].to_numpy(),
    )


def read_scores(path: Path) -> dict[str, list[float | None]]:
    """Sample id -> the rewards of its responses in annotated order."""
    table = read_score_table(path)
    rewards = [None if reward != reward else reward for reward in table.rewards.tolist()]  # noqa: PLR0124
    bounds = pairwise(table.offsets.tolist())
    return {name: rewards[start:end] for name, (start, end) in zip(table.ids, bounds, strict=True)}


def require_same_samples(ids: list[str], index: SampleIndex, what: str) -> None:
    """Check that a table was made from these samples.

    Raises:
        DataError: it was not; a table is only ever used with the samples it was made from.
    """
    if ids != index.ids:
        raise DataError(
            f"{what} belong to other samples: {len(ids)} there, {len(index.ids)} here",
            hint="score the dataset again",
        )
