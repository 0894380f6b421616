"""A JSON array of rows, cut into its elements while it is read; each is then decoded as a line would be.

The cut needs to know strings and brackets only. What is wrong inside an element concerns that row alone, and
no element is held beyond the cap on a line (ADR 0055).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from deft_engine.data.read_row import ReadRow, read_json, too_long
from deft_engine.data.upload_file import DAMAGE, UploadFile, damaged
from deft_engine.errors import FormatError

_BLOCK = 1 << 20
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_STRUCTURE = re.compile(rb'["\[\]{},]')
_NESTED = re.compile(rb'["\[\]{}]')  # within an element commas mean nothing
_BOM = b"\xef\xbb\xbf"


class JsonArray:
    """Reads the elements of the array that an upload is."""

    unit = "row"

    def __init__(self, upload: UploadFile) -> None:
        self._upload = upload
        self.total_bytes = upload.total_bytes

    @property
    def bytes_read(self) -> int:
        """Bytes of the upload, as stored, that were read so far."""
        return self._upload.bytes_read

    def __iter__(self) -> Iterator[ReadRow]:
        """Every element.

        Raises:
            FormatError: the array does not end, something follows it, a damaged gzip file, or beyond the
                limits.
        """
        limit = self._upload.limits.max_line_bytes
        number = 0
        try:
            for element in self._elements(limit):
                number += 1
                yield too_long(number, limit) if element is None else read_json(number, element)
        except DAMAGE as error:
            raise damaged(f"row {number + 1}", error) from error
        except _BrokenArray as error:
            raise FormatError(
                f"row {number + error.ahead}: {error}",
                hint="write one JSON array of objects, or one JSON object a line (JSONL)",
            ) from None

    def _elements(self, limit: int) -> Iterator[bytes | None]:
        """The bytes of each element; None where they are more than ``limit``."""
        cutter = _Cutter(limit)
        while block := self._upload.file.read(_BLOCK):
            yield from cutter.feed(block)
        if not cutter.ended:
            raise _BrokenArray("the JSON array breaks off here", ahead=1)


class _Cutter:
    """Finds where elements end; fed with the file's blocks, and indifferent to where those end."""

    def __init__(self, limit: int) -> None:
        self.ended = False
        self._element = _Element(limit)
        self._depth = 0  # 1 between the array's own brackets
        self._in_string = False
        self._escaped = False  # the block before ended behind a backslash

    def feed(self, block: bytes) -> Iterator[bytes | None]:
        """The elements that end in a block."""
        start = self._begin(block)
        at = start + self._escaped
        self._escaped = False
        while not self.ended and (end := self._element_end(block, at)) is not None:
            self._element.add(block[start : end - 1])
            if not (self.ended and self._element.is_nothing):
                yield self._element.take()
            start = at = end
        if not self.ended:
            self._element.add(block[start:])
        elif block[start:].strip():
            raise _BrokenArray("text follows the array's end", ahead=0)

    def _begin(self, block: bytes) -> int:
        """Where to start in a block: behind the array's bracket in the first one."""
        if self._depth or self.ended:
            return 0
        self._depth = 1
        return block.index(b"[") + 1

    def _element_end(self, block: bytes, at: int) -> int | None:
        """Behind the comma or bracket that ends the element, if it ends in this block."""
        while at < len(block):
            if self._in_string:
                at = self._string_end(block, at)
                continue
            found = (_STRUCTURE if self._depth == 1 else _NESTED).search(block, at)
            if found is None:
                return None
            at, token = found.end(), found.group()
            if token == b",":
                return at
            if token == b'"':
                self._in_string = True
                continue
            self._depth += 1 if token in b"[{" else -1
            if self._depth == 0:
                if token == b"}":
                    raise _BrokenArray("the array ends with } here", ahead=1)
                self.ended = True
                return at
        return None

    def _string_end(self, block: bytes, at: int) -> int:
        """Behind the string's closing quote, or the block's end."""
        found = _IN_STRING.match(block, at)
        end = found.end() if found else at
        self._escaped = block[end : end + 1] == b"\\"  # nothing stands behind it in this block
        self._in_string = self._escaped or end == len(block)
        return end + 1


class _Element:
    """The bytes of an element so far, forgotten where they are too many."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self._too_long = False
        self._is_first = True

    @property
    def is_nothing(self) -> bool:
        """Whether the array is empty so far."""
        return self._is_first and not self._too_long and not self._data.strip()

    def add(self, data: bytes) -> None:
        self._too_long = self._too_long or len(self._data) + len(data) > self._limit
        if self._too_long:
            self._data.clear()
        else:
            self._data += data

    def take(self) -> bytes | None:
        taken = None if self._too_long else bytes(self._data)
        self._data.clear()
        self._too_long = False
        self._is_first = False
        return taken


class _BrokenArray(Exception):
    def __init__(self, what: str, ahead: int) -> None:
        super().__init__(what)
        self.ahead = ahead
