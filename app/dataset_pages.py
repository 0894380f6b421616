"""Pages of a dataset's samples and of its ledger, read from the artifacts of its import."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.errors import FieldError, invalid_request
from deft_engine.data.samples import ROW_GROUP, read_samples
from deft_engine.types import Sample


def sample_page(
    samples: Path,
    levels: Path | None,
    *,
    level: str | None,
    subset: str | None,
    after: str | None,
    limit: int,
) -> tuple[list[tuple[Sample, str | None]], bool]:
    """Samples in the file's order, each with its level where it is graded, and whether more follow.

    Args:
        samples: ``samples.parquet``.
        levels: ``levels.parquet`` of the same samples.
        level: only samples of this level.
        subset: only samples of this subset.
        after: id of the sample before the page; none and an empty one are the start.
        limit: samples of the page.

    Raises:
        Problem: 422 if ``after`` names no sample.
    """
    index = pq.read_table(samples, columns=["id", "subset"], use_threads=False)
    ids = index["id"]
    wanted = np.ones(len(ids), dtype=bool)
    if subset is not None:
        wanted &= _booleans(pc.equal(index["subset"], subset))
    graded = _levels_of(levels, ids) if levels is not None else None
    if graded is not None and level is not None:
        wanted &= graded == level
    if after:
        wanted[: _position(ids, after) + 1] = False
    positions = np.flatnonzero(wanted)[: limit + 1]
    page = list(_read_at(samples, positions[:limit]))
    return [
        (sample, str(graded[at]) if graded is not None else None)
        for sample, at in zip(page, positions, strict=False)
    ], len(positions) > limit


def ledger_page(ledger: Path, *, after: int, limit: int) -> tuple[list[dict[str, Any]], bool]:
    """Rejected rows of a line above ``after``, in the file's order, and whether more follow."""
    with ledger.open("rb") as file:
        entries = (json.loads(line) for line in file)
        found = list(islice((entry for entry in entries if entry["line"] > after), limit + 1))
    return found[:limit], len(found) > limit


def _read_at(samples: Path, positions: npt.NDArray[np.int64]) -> Iterator[Sample]:
    """The samples at ascending positions; a gap of more than a row group is not read through."""
    reader: Iterator[Sample] = iter(())
    next_position = -1
    for position in positions.tolist():
        if next_position < 0 or position - next_position > ROW_GROUP:
            reader, next_position = read_samples(samples, position), position
        skipped = position - next_position
        yield from islice(reader, skipped, skipped + 1)
        next_position = position + 1


def _levels_of(levels: Path, ids: Any) -> npt.NDArray[np.str_]:
    """``[samples]``: each sample's level."""
    table = pq.read_table(levels, columns=["sample_id", "level"], use_threads=False)
    found = pc.index_in(ids, value_set=table["sample_id"].combine_chunks())
    return np.asarray(pc.take(table["level"], found).to_numpy(zero_copy_only=False), dtype=str)


def _booleans(column: Any) -> npt.NDArray[np.bool_]:
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=bool)


def _position(ids: Any, sample_id: str) -> int:
    position = int(pc.index(ids, sample_id).as_py())
    if position < 0:
        fault = FieldError(pointer="after", code="unknown_cursor", detail="names no sample of this dataset")
        raise invalid_request([fault])
    return position
