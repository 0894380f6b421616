"""The lines of an upload, plain or gzipped, in constant memory."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from deft_engine.data.limits import ReadLimits
from deft_engine.errors import FormatError

_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 20
_OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive; upload the JSONL file in it, plain or gzipped",
    b"PAR1": "a Parquet file; write its rows as JSONL",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; gzip it instead",
    b"BZh": "compressed by bzip2; gzip it instead",
    b"\xfd7zXZ": "compressed by xz; gzip it instead",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
}


class Line(NamedTuple):
    """A line that is not blank. ``data`` is None where it is longer than the cap."""

    number: int  # 1-based, blank lines counted
    data: bytes | None


class UploadReader:
    """Reads an upload line by line; a context manager."""

    def __init__(self, path: Path, limits: ReadLimits) -> None:
        self._limits = limits
        self._stack = ExitStack()
        self._packed: BinaryIO = self._stack.enter_context(path.open("rb"))
        self.total_bytes = path.stat().st_size
        start = self._packed.read(len(_GZIP))
        self._packed.seek(0)
        if start == _GZIP:
            unpacked = self._stack.enter_context(gzip.GzipFile(fileobj=self._packed))
            capped = _CappedReader(unpacked, self._packed, limits)
            self._file: BinaryIO = self._stack.enter_context(io.BufferedReader(capped, _BLOCK))
        else:
            self._file = self._packed

    @property
    def bytes_read(self) -> int:
        """Bytes of the upload, as stored, that were read so far."""
        return self._packed.tell()

    def __iter__(self) -> Iterator[Line]:
        """Every line but the blank ones.

        Raises:
            FormatError: not a text file, a damaged gzip file, or beyond the limits.
        """
        number = 0
        try:
            while data := self._file.readline(self._limits.max_line_bytes + 1):
                number += 1
                if number == 1:
                    data = _without_mark(data)
                if len(data) > self._limits.max_line_bytes:
                    self._skip_to_line_end(data)
                    yield Line(number, None)
                elif not data.isspace() and data:
                    yield Line(number, data)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise FormatError(
                f"line {number + 1}: the gzip file is truncated or damaged here ({error})",
                hint="pack and upload it again",
            ) from error

    def _skip_to_line_end(self, data: bytes) -> None:
        while data and not data.endswith(b"\n"):
            data = self._file.readline(_BLOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


class _CappedReader(io.RawIOBase):
    """Unpacked bytes, with an error where there are too many of them."""

    def __init__(self, unpacked: gzip.GzipFile, packed: BinaryIO, limits: ReadLimits) -> None:
        self._unpacked = unpacked
        self._packed = packed
        self._limits = limits
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self._unpacked.readinto(buffer)
        self._count += count
        limits = self._limits
        if self._count > limits.max_unpacked_bytes:
            raise FormatError(
                f"the upload unpacks to more than {limits.max_unpacked_bytes} bytes",
                hint="split the file, or raise DEFT_MAX_UNPACKED_BYTES",
                code="too_large",
            )
        ratio = self._count / max(self._packed.tell(), 1)
        if self._count > limits.ratio_grace_bytes and ratio > limits.max_gzip_ratio:
            raise FormatError(
                f"the upload unpacks to {ratio:.0f} times its size; the limit is {limits.max_gzip_ratio:g}",
                hint="if it is no gzip bomb, upload it unpacked or raise DEFT_MAX_GZIP_RATIO",
                code="too_large",
            )
        return count


def _without_mark(data: bytes) -> bytes:
    """The first line without its byte order mark.

    Raises:
        FormatError: the file is of another kind.
    """
    for start, kind in _OTHER_KINDS.items():
        if data.startswith(start):
            raise FormatError(f"line 1: the file is {kind}")
    data = data.removeprefix(_BOM)
    if data.lstrip().startswith(b"["):
        raise FormatError(
            "line 1: the file is a JSON array, or its rows are lists",
            hint="write one JSON object a line (JSONL), for example with jq -c '.[]'",
        )
    return data
