"""``samples.parquet``: samples on disk, written and read a row group at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from deft_engine.types import Message, Response, Sample

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("subset", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("responses", pa.list_(pa.struct([("text", pa.string()), ("reward", pa.float64())]))),
        ("line", pa.int64()),
    ]
)
ROW_GROUP = 2_000
"""Samples of a row group: what a page of samples costs to read at most."""


class SampleWriter:
    """Writes samples in the order of the calls; equal samples give equal bytes. A context manager."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self._pending: list[Sample] = []

    def write(self, sample: Sample) -> None:
        """Append a sample."""
        self._pending.append(sample)
        if len(self._pending) == ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_table(_to_table(self._pending), row_group_size=ROW_GROUP)
            self._pending.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write all samples."""
    with SampleWriter(path) as writer:
        for sample in samples:
            writer.write(sample)


def read_samples(path: Path, start: int = 0) -> Iterator[Sample]:
    """Samples from position ``start`` on, in the file's order; holds one row group in memory."""
    with pq.ParquetFile(path) as file:
        position = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if position + rows > start:
                table = file.read_row_group(group, use_threads=False)
                yield from _from_table(table.slice(max(start - position, 0)))
            position += rows


def read_response_texts(path: Path) -> Iterator[str]:
    """The text of every response, sample by sample in ranked order; reads nothing else."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["responses.list.element.text"], use_threads=False)
            for chunk in table["responses"].chunks:
                yield from chunk.flatten().field("text").to_pylist()


class StoredSamples:
    """The samples of a file, read anew whenever they are gone through: of a million, few are in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count: int = pq.read_metadata(path).num_rows

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sample]:
        return read_samples(self._path)


@dataclass(frozen=True, slots=True)
class SampleIndex:
    """What there is to know of all samples without their text, in the file's order."""

    ids: list[str]
    subsets: list[str]
    offsets: npt.NDArray[np.int64]
    """``[samples + 1]``: sample i's responses are ``offsets[i]:offsets[i + 1]`` of all responses."""


def read_index(path: Path) -> SampleIndex:
    """The index of a ``samples.parquet``; reads no text."""
    ids: list[str] = []
    subsets: list[str] = []
    lengths = [np.zeros(1, dtype=np.int64)]
    with pq.ParquetFile(path) as file:
        columns = ["id", "subset", "responses.list.element.reward"]
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=columns, use_threads=False).combine_chunks()
            ids += table["id"].to_pylist()
            subsets += table["subset"].to_pylist()
            for chunk in table["responses"].chunks:
                lengths.append(np.diff(chunk.offsets.to_numpy()).astype(np.int64))
    return SampleIndex(ids, subsets, np.cumsum(np.concatenate(lengths)))


def _to_table(samples: list[Sample]) -> pa.Table:
    messages = [message for sample in samples for message in sample.prompt]
    responses = [response for sample in samples for response in sample.responses]
    prompt = pa.StructArray.from_arrays(
        [
            pa.array([m.role for m in messages], pa.string()),
            pa.array([m.content for m in messages], pa.string()),
        ],
        names=["role", "content"],
    )
    ranked = pa.StructArray.from_arrays(
        [
            pa.array([r.text for r in responses], pa.string()),
            pa.array([r.reward for r in responses], pa.float64()),
        ],
        names=["text", "reward"],
    )
    columns = [
        pa.array([sample.id for sample in samples], pa.string()),
        pa.array([sample.subset for sample in samples], pa.string()),
        pa.ListArray.from_arrays(_offsets([len(sample.prompt) for sample in samples]), prompt),
        pa.ListArray.from_arrays(_offsets([len(sample.responses) for sample in samples]), ranked),
        pa.array([sample.line for sample in samples], pa.int64()),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _offsets(lengths: list[int]) -> pa.Array:
    return pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())


def _from_table(table: pa.Table) -> Iterator[Sample]:
    for batch in table.to_batches():
        columns = {name: batch.column(name) for name in SCHEMA.names}
        prompts = _lists(columns["prompt"], Message, "role", "content")
        responses = _lists(columns["responses"], Response, "text", "reward")
        for fields in zip(
            columns["id"].to_pylist(),
            columns["subset"].to_pylist(),
            prompts,
            responses,
            columns["line"].to_pylist(),
            strict=True,
        ):
            yield Sample(*fields)


def _lists(column: pa.ListArray, item: Any, first: str, second: str) -> Iterator[tuple[Any, ...]]:
    """The lists of a column of structs, each a tuple of ``item``s; by columns, since that is fast."""
    offsets = column.offsets.to_pylist()
    values = column.values
    items = list(map(item, values.field(first).to_pylist(), values.field(second).to_pylist()))
    for start, end in pairwise(offsets):
        yield tuple(items[start:end])
