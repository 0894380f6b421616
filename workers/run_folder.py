"""The folder in which a stage runs: its request and inputs go in, its events, outputs and log come out."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.db.claims import Claim, ClaimedInput, Output
from app.db.media_types import media_type
from deft_engine.run import StageRequest
from deft_engine.store import ArtifactStore

LEDGER = "ledger.jsonl"

_LOG_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class RunFolder:
    """See ``deft_engine.run`` for what the engine keeps in it; ``inputs/`` and the logs are the worker's."""

    path: Path

    def prepare(self, claim: Claim, store: ArtifactStore) -> None:
        """Write ``stage.json`` for a claim, with its inputs as links into the store.

        Raises:
            FileNotFoundError: an input is not in the store.
            OSError: the disk is full or read-only.
        """
        (self.path / "inputs").mkdir(parents=True, exist_ok=True)
        request = StageRequest(
            stage=claim.stage,
            fingerprint=claim.fingerprint,
            attempt=claim.attempt,
            spec=claim.spec,
            inputs={given.name: self._materialise(given, store) for given in claim.inputs},
            input_ids={given.name: given.identity for given in claim.inputs},
        )
        partial = self.path / "stage.json.partial"
        partial.write_text(request.model_dump_json())
        partial.replace(self.path / "stage.json")

    def events(self, attempt: int) -> Path:
        """Where the engine of an attempt writes its events."""
        return self.path / f"events-{attempt}.jsonl"

    def log(self, attempt: int) -> Path:
        """Where the engine of an attempt prints."""
        return self.path / f"attempt-{attempt}.log"

    def log_tail(self, attempt: int) -> str:
        """The last 64 KiB of what an attempt printed."""
        try:
            with self.log(attempt).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL_BYTES))
                return file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def manifest(self) -> dict[str, Any] | None:
        """The engine's manifest; it is there once the stage has succeeded, in whichever attempt."""
        try:
            return json.loads((self.path / "manifest.json").read_bytes())  # type: ignore[no-any-return]
        except FileNotFoundError:
            return None

    def store_outputs(self, manifest: dict[str, Any], store: ArtifactStore) -> list[Output]:
        """Put every file below ``out/`` into the store under the digest that the manifest gives."""
        outputs = []
        for name, file in manifest["outputs"].items():
            sha256 = store.put(self.path / "out" / name, file["sha256"])
            outputs.append(Output(name, sha256, file["size"], media_type(name)))
        return outputs

    def store_ledger(self, store: ArtifactStore) -> list[Output]:
        """Put the ledger of an import of which nothing can be used (``NothingUsable``) into the store."""
        ledger = self.path / "out.partial" / LEDGER
        size = ledger.stat().st_size
        return [Output(LEDGER, store.put(ledger), size, media_type(LEDGER))]

    def probe(self) -> None:
        """Write and remove a small file.

        Raises:
            OSError: the disk is full or read-only.
        """
        probe = self.path / "probe"
        probe.write_bytes(bytes(_LOG_TAIL_BYTES))
        probe.unlink()

    def _materialise(self, given: ClaimedInput, store: ArtifactStore) -> str:
        """An input as the engine is to find it: a local path, ``builtin:...`` or ``hub:...``."""
        if given.uri is None:
            if not given.files:
                raise FileNotFoundError(f"input {given.name}: no artifact {given.output} is known")
            folder = self.path / "inputs" / given.name
            for name, sha256 in given.files.items():
                _link(folder / name, store.get(sha256))
            return str(folder / (given.output or ""))
        scheme, _, rest = given.uri.partition(":")
        if scheme == "upload":
            link = self.path / "inputs" / given.name
            _link(link, store.get(rest))
            return str(link)
        return rest if scheme == "path" else given.uri


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target.resolve())
