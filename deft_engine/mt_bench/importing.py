"""An upload in FastChat's format: checked row by row, for jobs of kind judge. It holds no samples."""

from __future__ import annotations

from collections import Counter
from typing import Any

from deft_engine.data.ledger import write_rejection
from deft_engine.data.rows import RowReader
from deft_engine.data.samples import write_samples
from deft_engine.data.validate import Row, RowError
from deft_engine.errors import DataError
from deft_engine.mt_bench.files import FASTCHAT, Question, read_entry
from deft_engine.run import StageContext
from deft_engine.stages import ImportSpec
from deft_engine.types import Rejection


def import_fastchat(context: StageContext[ImportSpec], rows: RowReader) -> dict[str, Any]:
    """Write the ledger and a ``samples.parquet`` without samples; the result is the dataset's summary.

    Raises:
        FormatError: the file is damaged, or beyond the limits.
        DataError: not one row can be used.
    """
    groups: Counter[str] = Counter()
    seen: set[str] = set()
    read, first = 0, None
    with (context.out / "ledger.jsonl").open("wb") as ledger:
        for number, content in rows:
            read += 1
            context.stop.check()
            try:
                groups[_group(content, seen)] += 1
            except RowError as error:
                rejection = Rejection(number, error.code, error.detail)
                first = first or rejection
                write_rejection(ledger, rejection)
    if not seen and first is not None:
        raise DataError(
            f"{rows.unit} {first.line}: {first.detail}",
            hint=f"none of the {read} rows is one of FastChat's; correct them",
            code=first.code,
        )
    write_samples(context.out / "samples.parquet", ())
    context.events.progress(rows.total_bytes, rows.total_bytes)
    return {
        "format": FASTCHAT,
        "rows": read,
        "samples": 0,
        "rejected": read - len(seen),
        "responses_per_sample": {},
        "subsets": dict(sorted(groups.items())),
        "scored": 0,
        "mean_prompt_chars": 0.0,
        "mean_response_chars": 0.0,
    }


def _group(content: Row | RowError, seen: set[str]) -> str:
    """The category of a question, or the model of an answer; its id is noted.

    Raises:
        RowError: the row is neither, or its id was seen before.
    """
    if isinstance(content, RowError):
        raise content
    entry = read_entry(content)
    name, group = (
        (entry.id, entry.category) if isinstance(entry, Question) else (entry.question_id, entry.model)
    )
    if name in seen:
        raise RowError("duplicate_id", f"question_id {name} is that of an earlier row; keep one")
    seen.add(name)
    return group
