"""The rows of an upload, whatever the kind of file: JSON lines, a JSON array, or Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from deft_engine.data.json_array import JsonArray
from deft_engine.data.limits import ReadLimits
from deft_engine.data.lines import JsonLines
from deft_engine.data.parquet_rows import open_parquet
from deft_engine.data.read_row import ReadRow
from deft_engine.data.upload_file import UploadFile
from deft_engine.errors import FormatError

_PARQUET = b"PAR1"
_OTHER_KINDS = {
    b"PK\x03\x04": ("a zip archive", "upload the file in it, plain or gzipped"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "gzip it instead"),
    b"BZh": ("compressed by bzip2", "gzip it instead"),
    b"\xfd7zXZ": ("compressed by xz", "gzip it instead"),
    b"\x1f\x8b": ("gzipped twice", "gzip it once"),
    b"\xff\xfe": ("UTF-16 text", "save it as UTF-8"),
    b"\xfe\xff": ("UTF-16 text", "save it as UTF-8"),
}
_BOM = b"\xef\xbb\xbf"


class RowReader(Protocol):
    """Iterates over the rows of an upload.

    Raises while iterating:
        FormatError: the file as a whole is damaged, or beyond the limits.
    """

    unit: str
    """What a row's number counts: ``line`` or ``row``."""
    total_bytes: int

    @property
    def bytes_read(self) -> int: ...

    def __iter__(self) -> Iterator[ReadRow]: ...


@contextmanager
def open_rows(path: Path, limits: ReadLimits, scratch: Path) -> Iterator[RowReader]:
    """The reader that fits an upload's first bytes.

    Args:
        path: the upload, plain or gzipped.
        limits: caps on it.
        scratch: a folder for a gzipped Parquet file, which cannot be read from its start to its end.

    Raises:
        FormatError: the file is of a kind that cannot be read, or damaged.
    """
    with UploadFile(path, limits) as upload:
        head = upload.head()
        for start, (kind, advice) in _OTHER_KINDS.items():
            if head.startswith(start):
                raise FormatError(f"line 1: the file is {kind}", hint=advice)
        if head.startswith(_PARQUET):
            with open_parquet(upload, scratch) as rows:
                yield rows
        elif head.removeprefix(_BOM).lstrip().startswith(b"["):
            yield JsonArray(upload)
        else:
            yield JsonLines(upload)
