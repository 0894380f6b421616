"""A stage's progress and metrics: an append-only JSONL file with sequence numbers.

The engine writes; the service copies each line to its database exactly once, by (stage run, attempt, seq).
Kinds of event and their fields:

* ``progress``: ``step``, ``total`` (units of the stage: samples, optimiser steps)
* ``metrics``: ``step``, ``values`` (name -> float, or "NaN", "Infinity", "-Infinity")
* ``log``: ``level`` (info, warning), ``message``
* ``error``: the ``error`` object of ``DeftError.as_dict``
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any


def encode_number(value: float) -> float | str:
    """JSON has no NaN or infinity: they are written as the strings that JavaScript's Number() reads."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def decode_number(value: float | str) -> float:
    """The inverse of :func:`encode_number`."""
    return float(value)


class EventWriter:
    """Appends events to a file; each line is flushed, so that a killed process loses none it reported."""

    def __init__(self, path: Path) -> None:
        self._seq, whole = 0, 0
        self._file = path.open("ab", buffering=0)
        for whole, event in read_events(path, 0):  # noqa: B007
            self._seq = event["seq"]
        self._file.truncate(whole)  # a line that a killed process did not finish

    def progress(self, step: int, total: int | None) -> None:
        """How far the stage is."""
        self._write("progress", {"step": step, "total": total})

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Figures at a step; a repeated (name, step) replaces the earlier point."""
        self._write(
            "metrics", {"step": step, "values": {k: encode_number(float(v)) for k, v in values.items()}}
        )

    def log(self, message: str, level: str = "info") -> None:
        """A line for people."""
        self._write("log", {"level": level, "message": message})

    def error(self, error: Mapping[str, Any]) -> None:
        """Why the stage failed."""
        self._write("error", dict(error))

    def close(self) -> None:
        """Flush to the disk and close."""
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, kind: str, fields: dict[str, Any]) -> None:
        self._seq += 1
        event = {"seq": self._seq, "time": datetime.now(UTC).isoformat(), "type": kind, **fields}
        # a lone surrogate, of a file name that is no UTF-8, becomes the JSON escape that it is read from
        line = (
            json.dumps(event, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace") + b"\n"
        )
        start = self._file.seek(0, os.SEEK_END)
        if self._file.write(line) != len(line):
            self._file.truncate(start)  # no half a line before the next one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)


def read_events(path: Path, offset: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Whole events from a byte offset on, each with the offset behind it; an unfinished last line waits."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield offset, json.loads(line)
