"""Parquet: rows in batches, of the columns that some format reads. Its footer is not believed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from deft_engine.data.limits import ReadLimits
from deft_engine.data.read_row import ReadRow, too_long
from deft_engine.data.upload_file import DAMAGE, UploadFile, check_unpacked, damaged
from deft_engine.data.validate import RowError
from deft_engine.errors import FormatError, ResourceError

COLUMNS = frozenset(
    {
        *("id", "subset"),
        *("prompt", "messages", "query", "responses", "scores"),
        *("chosen", "rejected", "score_chosen", "score_rejected"),
        *("prefix", "suffix", "reward", "sft_index"),
        *("instruction", "completions"),
        *("conversations", "system"),
    }
)
"""What the formats read; other columns stay on the disk."""

_BLOCK = 1 << 20
_BATCH_BYTES = 32 << 20
_BATCH_ROWS = 1_000
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError, RecursionError)
_UNDECODABLE = (pa.ArrowException, ValueError, OverflowError, RecursionError)


@contextmanager
def open_parquet(upload: UploadFile, scratch: Path) -> Iterator[ParquetRows]:
    """The rows of a Parquet upload; a gzipped one is unpacked into ``scratch`` first, under the caps.

    Raises:
        FormatError: its footer cannot be read, or it has none of the columns.
    """
    with tempfile.TemporaryFile(dir=scratch) as spool:
        file = upload.file
        if upload.is_packed:
            _unpack(upload, spool)
            file = spool
        with _opened(file) as parquet:
            yield ParquetRows(parquet, upload, os.fstat(file.fileno()).st_size)


class ParquetRows:
    """Reads the rows of a Parquet file, in batches of bounded size."""

    unit = "row"

    def __init__(self, file: pq.ParquetFile, upload: UploadFile, stored_bytes: int) -> None:
        self._file = file
        self._limits: ReadLimits = upload.limits
        self._stored_bytes = stored_bytes
        self._rows = 0
        self.total_bytes = upload.total_bytes
        names = file.schema_arrow.names
        self._columns = [name for name in names if name in COLUMNS]
        if not self._columns:
            shown = ", ".join(f'"{name[:40]}"' for name in names[:12]) or "none"
            raise FormatError(
                f"row 1: no known format: the columns are {shown}", hint="rename them; docs/formats.md"
            )
        if repeated := {name for name in self._columns if self._columns.count(name) > 1}:
            raise FormatError(f'the file has two columns "{min(repeated)}"', hint="keep one of them")

    @property
    def bytes_read(self) -> int:
        """Bytes of the upload that were read so far, by the share of its rows."""
        claimed = max(int(self._file.metadata.num_rows), 1)
        return min(self.total_bytes, self.total_bytes * self._rows // claimed)

    def __iter__(self) -> Iterator[ReadRow]:
        """Every row.

        Raises:
            FormatError: pages that cannot be decoded, fewer rows than the footer claims, or beyond the
                limits.
        """
        unpacked = 0
        with _readable(lambda: f"row {self._rows + 1}"):
            batches = self._file.iter_batches(
                batch_size=self._batch_rows(), columns=self._columns, use_threads=False
            )
        while True:
            with _readable(lambda: f"row {self._rows + 1}"):
                batch = next(batches, None)
            if batch is None:
                break
            unpacked += batch.nbytes
            check_unpacked(unpacked, self._stored_bytes, self._limits)
            for content in _contents(batch, self._limits.max_line_bytes):
                self._rows += 1
                yield ReadRow(self._rows, content)
        claimed = self._file.metadata.num_rows
        if self._rows != claimed:
            raise FormatError(
                f"row {self._rows}: the file ends here, but its footer tells of {claimed} rows",
                hint="write the file again",
            )

    def _batch_rows(self) -> int:
        """So many rows that a batch stays small, if the footer is right about their size."""
        metadata = self._file.metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        largest = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
        return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(int(largest), 1)))


def _contents(batch: pa.RecordBatch, limit: int) -> Iterator[dict[str, Any] | RowError]:
    """Each row of a batch; one that cannot be decoded is an error of its own."""
    if batch.nbytes <= limit:
        try:
            yield from batch.to_pylist()
        except _UNDECODABLE:
            pass
        else:
            return
    for position in range(batch.num_rows):
        row = batch.slice(position, 1)
        if row.nbytes > limit:
            yield too_long(0, limit).content
            continue
        try:
            (content,) = row.to_pylist()
        except UnicodeDecodeError:
            yield RowError("invalid_utf8", "a string of the row is not UTF-8; write it as UTF-8")
        except _UNDECODABLE as error:
            yield RowError("wrong_type", f"a value cannot be read ({error}); write strings and numbers")
        else:
            yield content


@contextmanager
def _opened(file: BinaryIO) -> Iterator[pq.ParquetFile]:
    with _readable(lambda: "the footer"):
        parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=_BLOCK)
    with parquet:
        yield parquet


@contextmanager
def _readable(place: Callable[[], str]) -> Iterator[None]:
    """What pyarrow says of a file that it cannot read, as an error with a place."""
    try:
        yield
    except MemoryError as error:
        raise ResourceError(
            f"{place()}: the Parquet file asks for more memory than there is ({_first_line(error)})",
            hint="write it again with smaller row groups",
            code="out_of_memory",
        ) from error
    except _UNREADABLE as error:
        raise FormatError(
            f"{place()}: the Parquet file is damaged or of a kind that is not read ({_first_line(error)})",
            hint="write the file again, or upload its rows as JSONL",
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or ["no reason given"])[0][:200]


def _unpack(upload: UploadFile, spool: BinaryIO) -> None:
    try:
        shutil.copyfileobj(upload.file, spool, _BLOCK)
    except DAMAGE as error:
        raise damaged("row 1", error) from error
    spool.seek(0)
