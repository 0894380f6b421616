"""JSON lines: one object a line."""

from __future__ import annotations

from collections.abc import Iterator

from deft_engine.data.read_row import ReadRow, read_json, too_long
from deft_engine.data.upload_file import DAMAGE, UploadFile, damaged

_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 20


class JsonLines:
    """Reads an upload line by line."""

    unit = "line"

    def __init__(self, upload: UploadFile) -> None:
        self._upload = upload
        self.total_bytes = upload.total_bytes

    @property
    def bytes_read(self) -> int:
        """Bytes of the upload, as stored, that were read so far."""
        return self._upload.bytes_read

    def __iter__(self) -> Iterator[ReadRow]:
        """Every line but the blank ones.

        Raises:
            FormatError: a damaged gzip file, or beyond the limits.
        """
        limit = self._upload.limits.max_line_bytes
        number = 0
        try:
            while data := self._upload.file.readline(limit + 1):
                number += 1
                if number == 1:
                    data = data.removeprefix(_BOM)
                if len(data) > limit:
                    self._skip_to_line_end(data)
                    yield too_long(number, limit)
                elif not data.isspace() and data:
                    yield read_json(number, data)
        except DAMAGE as error:
            raise damaged(f"line {number + 1}", error) from error

    def _skip_to_line_end(self, data: bytes) -> None:
        while data and not data.endswith(b"\n"):
            data = self._upload.file.readline(_BLOCK)
