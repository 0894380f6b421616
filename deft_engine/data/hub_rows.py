"""The rows of several files as those of one upload: numbered on, with an id and a subset of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from deft_engine.data.hub_files import HubFile
from deft_engine.data.limits import ReadLimits
from deft_engine.data.read_row import ReadRow
from deft_engine.data.rows import open_rows
from deft_engine.data.validate import RowError, is_given


class HubRows:
    """A ``RowReader`` over downloaded files, the first ``limit`` rows of all of them.

    A row without an id is ``<path>:<number>``, one without a subset has that of its file's folder.
    """

    unit = "row"

    def __init__(
        self, hub_files: Sequence[HubFile], limit: int | None, limits: ReadLimits, scratch: Path
    ) -> None:
        self._files = hub_files
        self._limit = limit
        self._limits = limits
        self._scratch = scratch
        self._before = 0  # bytes of the files that are read
        self._bytes = 0
        self.total_bytes = sum(file.local.stat().st_size for file in hub_files)

    @property
    def bytes_read(self) -> int:
        return min(self._bytes, self.total_bytes)

    def __iter__(self) -> Iterator[ReadRow]:
        read = 0
        for file in self._files:
            with open_rows(file.local, self._limits, self._scratch) as rows:
                for number, content in rows:
                    if read == self._limit:
                        return
                    read += 1
                    self._bytes = self._before + rows.bytes_read
                    yield ReadRow(read, _placed(file, rows.unit, number, content))
            self._before += file.local.stat().st_size


def _placed(
    file: HubFile, unit: str, number: int, content: dict[str, object] | RowError
) -> dict[str, object] | RowError:
    """The row with an id and a subset, or its error with the place in its file."""
    if isinstance(content, RowError):
        return RowError(content.code, f"{file.path} {unit} {number}: {content.detail}")
    defaults = {"id": f"{file.path}:{number}", "subset": file.subset}
    return {**content, **{name: value for name, value in defaults.items() if not is_given(content, name)}}
