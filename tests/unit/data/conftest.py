"""Runs the import stage in a folder, as ``deft_engine.run`` does."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deft_engine.data import importing
from deft_engine.data.samples import read_samples
from deft_engine.errors import DeftError
from deft_engine.events import EventWriter, read_events
from deft_engine.run import StageContext, StopRequest
from deft_engine.stages import ImportSpec
from deft_engine.types import Sample


@dataclass
class Imported:
    summary: dict[str, Any]
    samples: list[Sample]
    ledger: list[dict[str, Any]]
    events: list[dict[str, Any]]
    folder: Path

    @property
    def codes(self) -> list[tuple[int, str]]:
        return [(entry["line"], entry["code"]) for entry in self.ledger]


Importer = Callable[..., Imported]


@pytest.fixture
def import_upload(tmp_path: Path) -> Importer:
    """Imports bytes, or rows as JSONL; ``packed`` gzips them."""
    runs = iter(range(1_000_000))

    def importer(content: bytes | Sequence[Any], *, packed: bool = False, **spec: Any) -> Imported:
        folder = tmp_path / str(next(runs))
        (folder / "out").mkdir(parents=True)
        upload = folder / "upload"
        data = content if isinstance(content, bytes) else jsonl(content)
        upload.write_bytes(gzip.compress(data) if packed else data)
        out = folder / "out"
        with EventWriter(folder / "events") as events:
            context = StageContext(
                ImportSpec(**spec), {"upload": str(upload)}, out, folder, events, StopRequest()
            )
            summary = importing.run(context)
        ledger = [json.loads(line) for line in (out / "ledger.jsonl").read_bytes().splitlines()]
        written = [event for _, event in read_events(folder / "events", 0)]
        return Imported(summary, list(read_samples(out / "samples.parquet")), ledger, written, out)

    return importer


def imported_or_error(import_upload: Importer, content: bytes, named: str) -> Imported | DeftError:
    try:
        return import_upload(content, format=named)
    except DeftError as error:
        return error


def jsonl(rows: Sequence[Any]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
