"""Checkpoints in a stage's ``work`` folder: whole or absent, and refused by any run but their own.

A checkpoint is a folder ``checkpoint-<step>``, written under another name and renamed when every byte of it
is on the disk, so that a process killed while saving leaves the one before untouched. No torch here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deft_engine.base import Spec
from deft_engine.canonical import canonical_json, sha256_hex
from deft_engine.durable import fsync
from deft_engine.errors import CheckpointMismatch, DiskFull
from deft_engine.spec_sections import Engine

_PREFIX = "checkpoint-"
_UNFINISHED = ".partial"  # being written or being deleted
_MANIFEST = "checkpoint.json"
_NO_SPACE = 2**20  # bytes


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What must be equal for a checkpoint to be continued."""

    engine: Engine
    world_size: int
    spec_sha256: str

    @classmethod
    def of(cls, spec: Spec, engine: Engine = "single", world_size: int = 1) -> RunIdentity:
        """The identity of a run of ``spec``."""
        return cls(engine, world_size, sha256_hex(canonical_json(spec.model_dump(mode="json"))))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint: its folder, the optimiser steps made, and what the run keeps beside the model."""

    folder: Path
    step: int
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run; keeps the last ``keep``."""

    def __init__(self, work: Path, identity: RunIdentity, *, keep: int = 2) -> None:
        self.work = work
        self._identity = identity
        self._keep = keep

    def discard_unfinished(self) -> None:
        """Remove what a process that died left half written."""
        for leftover in self.work.glob(f"{_PREFIX}*{_UNFINISHED}"):
            shutil.rmtree(leftover)

    def unfinished(self, step: int) -> Path:
        """The folder that the checkpoint of ``step`` is written in before it is whole."""
        return self.work / f"{_PREFIX}{step}{_UNFINISHED}"

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint, or None.

        Raises:
            CheckpointMismatch: it was written by another engine, world size or spec.
        """
        folders = self._folders()
        if not folders:
            return None
        folder = folders[-1]
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        for name, expected in asdict(self._identity).items():
            if manifest.get(name) != expected:
                raise CheckpointMismatch(
                    f"{folder}: written with {name} {manifest.get(name)!r}, this run has {expected!r}",
                    hint="resume it as it was started, or send the job again with ?reuse=false to train anew",
                )
        return Checkpoint(folder, manifest["step"], manifest["state"])

    @contextmanager
    def writing(self, step: int, state: Mapping[str, Any]) -> Iterator[Path]:
        """A folder to fill with the model, the optimiser and so on; on leaving, the newest checkpoint.

        Args:
            step: optimiser steps made so far.
            state: JSON values that the run wants back, see ``Checkpoint.state``.

        Raises:
            DiskFull: the checkpoint does not fit.
        """
        final = self.work / f"{_PREFIX}{step}"
        building = self.unfinished(step)
        building.mkdir()
        try:
            yield building
            manifest = {**asdict(self._identity), "step": step, "state": dict(state)}
            (building / _MANIFEST).write_bytes(canonical_json(manifest))
            _sync_folder(building)
        except BaseException as error:
            is_full = shutil.disk_usage(self.work).free < _NO_SPACE
            shutil.rmtree(building, ignore_errors=True)
            if is_full and isinstance(error, Exception):  # torch.save's own error does not say so
                raise DiskFull(
                    f"the disk is full: the checkpoint of step {step} could not be written",
                    hint="free some space in DEFT's home and send the job again; what is stored is unharmed",
                ) from error
            raise
        building.rename(final)
        fsync(self.work)
        for old in self._folders()[: -self._keep]:
            shutil.rmtree(old.rename(old.with_name(old.name + _UNFINISHED)))

    def _folders(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        steps = sorted(
            int(name)
            for folder in self.work.glob(f"{_PREFIX}*")
            if (name := folder.name.removeprefix(_PREFIX)).isdecimal()
        )
        return [self.work / f"{_PREFIX}{step}" for step in steps]


def _sync_folder(folder: Path) -> None:
    for path in folder.rglob("*"):
        fsync(path)
    fsync(folder)
