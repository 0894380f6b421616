"""The artifact store: files by their SHA-256, immutable, each once."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Protocol

from deft_engine.canonical import sha256_file
from deft_engine.durable import fsync


class ArtifactStore(Protocol):
    """Where artifacts are kept; workers on other machines fetch what they need by its digest."""

    def put(self, path: Path, sha256: str | None = None) -> str:
        """Store a file and return its SHA-256. ``sha256``: already known, not computed again."""
        ...

    def get(self, sha256: str) -> Path:
        """A local path of the content, read-only by convention.

        Raises:
            FileNotFoundError: there is no such content.
        """
        ...

    def delete(self, sha256: str) -> None:
        """Forget the content; nothing happens if it is not there."""
        ...


class LocalStore:
    """An :class:`ArtifactStore` in a folder.

    ``put`` links instead of copying where it can. Under a digest's name lies all of its content, on the disk,
    or nothing: the database's row that names it must not outlive it when the power fails.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, path: Path, sha256: str | None = None) -> str:
        digest = sha256 or sha256_file(path)
        target = self._path(digest)
        if target.exists():
            return digest
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=target.parent)
        os.close(descriptor)
        try:
            os.unlink(partial)
            try:
                os.link(path, partial)
            except OSError:  # another file system
                shutil.copyfile(path, partial)
            fsync(Path(partial))
            os.replace(partial, target)
            fsync(target.parent)
        finally:
            Path(partial).unlink(missing_ok=True)  # also where another put of the same file came first
        return digest

    def get(self, sha256: str) -> Path:
        path = self._path(sha256)
        if not path.exists():
            raise FileNotFoundError(f"artifact {sha256} is not in the store {self._root}")
        return path

    def delete(self, sha256: str) -> None:
        self._path(sha256).unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256
