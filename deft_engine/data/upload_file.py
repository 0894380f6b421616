"""The bytes of an upload, plain or gzipped, in constant memory and under caps."""

from __future__ import annotations

import gzip
import io
import zlib
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from deft_engine.data.limits import ReadLimits
from deft_engine.errors import FormatError

DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)
"""What reading a gzip file raises where it is cut off or altered."""

_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 20
_HEAD = 1 << 10  # bytes by which the kind of file is told


class UploadFile:
    """An upload's unpacked bytes as ``file``; a context manager."""

    def __init__(self, path: Path, limits: ReadLimits) -> None:
        self.path = path
        self.limits = limits
        self.total_bytes = path.stat().st_size
        self._stack = ExitStack()
        self._packed: BinaryIO = self._stack.enter_context(path.open("rb"))
        self.is_packed = self._packed.read(len(_GZIP)) == _GZIP
        self._packed.seek(0)
        self.file: BinaryIO = self._packed
        if self.is_packed:
            unpacked = self._stack.enter_context(gzip.GzipFile(fileobj=self._packed))
            capped = _CappedReader(unpacked, self._packed, limits)
            self.file = self._stack.enter_context(io.BufferedReader(capped, _BLOCK))

    @property
    def bytes_read(self) -> int:
        """Bytes of the upload, as stored, that were read so far."""
        return self._packed.tell()

    def head(self) -> bytes:
        """The first bytes, unpacked; ``file`` stays where it is.

        Raises:
            FormatError: the gzip file is damaged there.
        """
        try:
            with gzip.open(self.path) if self.is_packed else self.path.open("rb") as again:
                return again.read(_HEAD)
        except DAMAGE as error:
            raise damaged("line 1", error) from error

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
        check_unpacked(self._count, self._packed.tell(), self._limits)
        return count


def check_unpacked(unpacked: int, packed: int, limits: ReadLimits) -> None:
    """Whether ``packed`` bytes may become ``unpacked`` ones.

    Raises:
        FormatError: they are too many, or too many for so few.
    """
    if unpacked > limits.max_unpacked_bytes:
        raise FormatError(
            f"the upload unpacks to more than {limits.max_unpacked_bytes} bytes",
            hint="split the file, or raise DEFT_MAX_UNPACKED_BYTES",
            code="too_large",
        )
    ratio = unpacked / max(packed, 1)
    if unpacked > limits.ratio_grace_bytes and ratio > limits.max_gzip_ratio:
        raise FormatError(
            f"the upload unpacks to {ratio:.0f} times its size; the limit is {limits.max_gzip_ratio:g}",
            hint="if it is no bomb of compressed data, upload it unpacked or raise DEFT_MAX_GZIP_RATIO",
            code="too_large",
        )


def damaged(place: str, error: BaseException) -> FormatError:
    """What to raise where reading met ``DAMAGE``."""
    return FormatError(
        f"{place}: the gzip file is truncated or damaged here ({error})", hint="pack and upload it again"
    )
