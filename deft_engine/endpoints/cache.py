"""Answers by the hash of their request, on disk: no request is paid for twice, in whichever process."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CACHE_VARIABLE = "DEFT_ENDPOINT_CACHE"
"""Names the folder of answers that all stages share; without it a stage keeps its own in ``work/``."""

_LOCK_DIGITS = 3  # requests whose hashes start alike wait for one another: of 4,096 kinds


class AnswerCache:
    """A folder of ``<hash>.json`` files, each there whole or not at all."""

    def __init__(self, root: Path) -> None:
        self._root = root
        (root / "locks").mkdir(parents=True, exist_ok=True)

    @contextmanager
    def claimed(self, key: str) -> Iterator[CacheEntry]:
        """The entry of a request, held against every other thread and process that has the same one."""
        with (self._root / "locks" / key[:_LOCK_DIGITS]).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield CacheEntry(self._root / key[:2] / f"{key}.json")


class CacheEntry:
    """One answer's place."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, Any] | None:
        """What was kept, or None."""
        try:
            return json.loads(self._path.read_bytes())  # type: ignore[no-any-return]
        except FileNotFoundError:
            return None

    def write(self, content: dict[str, Any]) -> None:
        """Keep an answer; it is on the disk when this returns."""
        self._path.parent.mkdir(exist_ok=True)
        partial = self._path.with_suffix(".partial")  # nobody else's: the entry is claimed
        with partial.open("wb") as file:
            file.write(json.dumps(content).encode())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)
