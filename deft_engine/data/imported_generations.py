"""The stage ``import_generations``: answers made elsewhere, each matched to the sample that it answers.

A row has ``response``, and ``sample_id`` or ``prompt`` (a string, a transcript or messages, as in a dataset);
with both, the prompt must be the sample's. Other fields are not read, so a ``generations.jsonl`` of a job can
be imported as it is. Codes of the ledger beside those of ``data.validate``::

    unknown_sample, unknown_prompt      the dataset has no such sample
    other_prompt                        the sample has another prompt
    ambiguous_prompt                    several samples have it; a sample_id is needed
    duplicate_answer                    the sample was answered by an earlier row
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from deft_engine.data.ledger import write_rejection
from deft_engine.data.limits import ReadLimits
from deft_engine.data.prompts import prompt_field, read_prompt
from deft_engine.data.rows import RowReader, open_rows
from deft_engine.data.samples import StoredSamples
from deft_engine.data.validate import Row, RowError, is_given, row_name, text
from deft_engine.errors import DataError
from deft_engine.run import StageContext
from deft_engine.stages import ImportGenerationsSpec
from deft_engine.types import Message, Rejection

IMPORTED = "imported.jsonl"
FORMAT = "generations"
_PROMPT_FIELDS = ("prompt", "messages")
_REPORT_EVERY = 5_000  # rows
_SHOWN = 80  # characters of a name in an error


def run(context: StageContext[ImportGenerationsSpec]) -> dict[str, Any]:
    """Write ``imported.jsonl`` (``sample_id, response``, in the samples' order) and ``ledger.jsonl``.

    In memory there are 16 bytes a prompt, the samples' ids and places, and one row.

    Raises:
        FormatError: the file is damaged, or beyond the limits.
        DataError: not one row answers a sample; the message names the first one's line.
    """
    samples = _Samples.read(context.path("samples"))
    limits = ReadLimits.from_environment()
    places = np.full(len(samples.ids), -1, dtype=np.int64)
    rows, codes, first = 0, Counter[str](), None
    with (
        open_rows(context.path("upload"), limits, context.work) as reader,
        (context.out / "ledger.jsonl").open("wb") as ledger,
        (context.work / "answers").open("w+b") as answers,
    ):
        for number, content in reader:
            rows += 1
            try:
                position, response = samples.answered(content)
                if places[position] >= 0:
                    raise RowError(
                        "duplicate_answer",
                        f'sample "{samples.ids[position][:_SHOWN]}" was answered by an earlier row; keep one',
                    )
                places[position] = answers.tell()
                answers.write(json.dumps(response, ensure_ascii=False).encode() + b"\n")
            except RowError as error:
                rejection = Rejection(number, error.code, error.detail)
                first = first or rejection
                codes[error.code] += 1
                write_rejection(ledger, rejection)
            if rows % _REPORT_EVERY == 0:
                context.stop.check()
                context.events.progress(reader.bytes_read, reader.total_bytes)
        if not (places >= 0).any():
            raise _nothing_answered(reader, rows, first, codes)
        subsets = _write_in_order(context.out / IMPORTED, samples, places.tolist(), answers)
        context.events.progress(reader.total_bytes, reader.total_bytes)
    answered = subsets.total()
    return {
        "format": FORMAT,
        "rows": rows,
        "samples": answered,
        "rejected": rows - answered,
        "unanswered": len(samples.ids) - answered,
        "subsets": dict(sorted(subsets.items())),
    }


def read_imported(path: Path) -> Iterator[tuple[str, str]]:
    """Sample id and response of every answer, in the samples' order."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            row = json.loads(line)
            yield row["sample_id"], row["response"]


@dataclass(slots=True)
class _Samples:
    """The samples that may be answered, by id and by prompt."""

    ids: list[str] = field(default_factory=list)
    subsets: list[str] = field(default_factory=list)
    prompts: list[bytes] = field(default_factory=list)
    """A digest of each one's prompt."""
    by_id: dict[str, int] = field(default_factory=dict)
    by_prompt: dict[bytes, int] = field(default_factory=dict)
    """The one sample with this prompt; ``_SEVERAL`` where there are more."""

    @classmethod
    def read(cls, path: Path) -> _Samples:
        found = cls()
        for position, sample in enumerate(StoredSamples(path)):
            digest = _digest(sample.prompt)
            found.ids.append(sample.id)
            found.subsets.append(sample.subset)
            found.prompts.append(digest)
            found.by_id[sample.id] = position
            found.by_prompt[digest] = _SEVERAL if digest in found.by_prompt else position
        return found

    def answered(self, row: Row | RowError) -> tuple[int, str]:
        """Position of the sample that a row answers, and the answer.

        Raises:
            RowError: the row cannot be used.
        """
        if isinstance(row, RowError):
            raise row
        response, digest = text(row, "response"), None
        if prompt_field(row, _PROMPT_FIELDS) is not None:
            prompt, verbatim = read_prompt(row, _PROMPT_FIELDS)
            response, digest = verbatim(response), _digest(prompt)
        if is_given(row, "sample_id"):
            return self._named(row_name(row, "sample_id", ""), digest), response
        if digest is None:
            raise RowError(
                "missing_field", 'has neither "sample_id" nor "prompt"; say which sample the response answers'
            )
        position = self.by_prompt.get(digest)
        if position is None:
            raise RowError("unknown_prompt", "no sample of the dataset has this prompt; send it unchanged")
        if position == _SEVERAL:
            raise RowError("ambiguous_prompt", "several samples have this prompt; write the sample_id")
        return position, response

    def _named(self, name: str, digest: bytes | None) -> int:
        position = self.by_id.get(name)
        if position is None:
            raise RowError("unknown_sample", f'the dataset has no sample "{name[:_SHOWN]}"')
        if digest is not None and digest != self.prompts[position]:
            raise RowError(
                "other_prompt",
                f'sample "{name[:_SHOWN]}" of the dataset has another prompt; was it answered as it is?',
            )
        return position


_SEVERAL = -1


def _digest(prompt: Sequence[Message]) -> bytes:
    content = json.dumps(prompt, ensure_ascii=False).encode()
    return hashlib.blake2b(content, digest_size=16).digest()


def _write_in_order(path: Path, samples: _Samples, places: list[int], answers: BinaryIO) -> Counter[str]:
    """Write the answers by the samples' order; returns how many there are of each subset."""
    subsets: Counter[str] = Counter()
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for name, subset, place in zip(samples.ids, samples.subsets, places, strict=True):
            if place < 0:
                continue
            answers.seek(place)
            row = {"sample_id": name, "response": json.loads(answers.readline())}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            subsets[subset] += 1
    return subsets


def _nothing_answered(
    reader: RowReader, rows: int, first: Rejection | None, codes: Counter[str]
) -> DataError:
    hint = 'write rows with "response", and the "sample_id" or the "prompt" of a sample of the dataset'
    if first is None:
        return DataError("the file has no rows", hint=hint)
    reasons = ", ".join(f"{count} {code}" for code, count in codes.most_common(4))
    return DataError(
        f"{reader.unit} {first.line}: {first.detail}",
        hint=f"none of the {rows} rows answers a sample ({reasons}); {hint}",
        code=first.code,
    )
