"""The stage ``import``: an upload becomes samples, and every row that cannot be used a ledger entry."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from deft_engine.data.formats import EXPECTED, READERS, tell_format
from deft_engine.data.hub_dataset import URI_SCHEME, HubDataset
from deft_engine.data.hub_files import HubFile, download
from deft_engine.data.hub_rows import HubRows
from deft_engine.data.ledger import write_rejection
from deft_engine.data.limits import ReadLimits
from deft_engine.data.read_row import ReadRow
from deft_engine.data.rows import RowReader, open_rows
from deft_engine.data.samples import SampleWriter
from deft_engine.data.validate import RowError, check_conversation, row_name
from deft_engine.errors import FormatError, NothingUsable
from deft_engine.mt_bench.files import FASTCHAT
from deft_engine.mt_bench.importing import import_fastchat
from deft_engine.run import StageContext
from deft_engine.stages import ImportSpec
from deft_engine.types import Rejection, Sample

DEFAULT_SUBSET = "default"
_FIRST_ROWS = 100  # rows whose fields tell the format
_REPORT_EVERY = 5_000  # rows


def run(context: StageContext[ImportSpec]) -> dict[str, Any]:
    """Read the input ``upload``; write ``samples.parquet`` and ``ledger.jsonl``.

    Progress counts bytes of the upload. The result is the dataset's summary.

    Raises:
        FormatError: the file is of no known format, is damaged, or is beyond the limits.
        NothingUsable: not one row can be used; the message names the first one's line.
    """
    source = _Source.of(context)
    name: str = context.spec.format
    if name == "auto":
        with source.rows() as reader:
            name = _tell_format(reader)
    if name == FASTCHAT:
        with source.rows() as reader:
            return import_fastchat(context, reader)
    with (
        source.rows() as reader,
        SampleWriter(context.out / "samples.parquet") as samples,
        (context.out / "ledger.jsonl").open("wb") as ledger,
    ):
        importer = _Importer(name, context.spec.subset or DEFAULT_SUBSET, reader.unit)
        summary = _Summary(name, reader.unit)
        for outcome in importer.outcomes(reader):
            if isinstance(outcome, Sample):
                samples.write(outcome)
            else:
                write_rejection(ledger, outcome)
            summary.count(outcome)
            if summary.rows % _REPORT_EVERY == 0:
                context.stop.check()
                context.events.progress(reader.bytes_read, reader.total_bytes)
    context.events.progress(reader.total_bytes, reader.total_bytes)
    summary.require_samples()
    if summary.rejected:
        context.events.log(
            f"{summary.rejected} of {summary.rows} rows are not used; see the ledger", "warning"
        )
    return {**summary.as_dict(), **source.described}


@dataclass(frozen=True, slots=True)
class _Source:
    """Where rows come from: an upload, or files of the hub that are downloaded first."""

    upload: Path
    scratch: Path
    limits: ReadLimits
    hub_files: tuple[HubFile, ...] = ()
    limit: int | None = None
    described: Mapping[str, Any] = field(default_factory=dict)
    """What the summary says of it."""

    @classmethod
    def of(cls, context: StageContext[ImportSpec]) -> _Source:
        limits, uri = ReadLimits.from_environment(), context.inputs["upload"]
        if not uri.startswith(URI_SCHEME):
            return cls(Path(uri), context.work, limits)
        wanted = HubDataset.from_uri(uri)
        commit, found = download(wanted, context.work / "hub", context.stop.check)
        described = {"hub": {"commit": commit, "files": [file.path for file in found]}}
        return cls(Path(), context.work, limits, tuple(found), wanted.limit, described)

    @contextmanager
    def rows(self) -> Iterator[RowReader]:
        """A reader from the start."""
        if self.hub_files:
            yield HubRows(self.hub_files, self.limit, self.limits, self.scratch)
            return
        with open_rows(self.upload, self.limits, self.scratch) as reader:
            yield reader


def _tell_format(reader: RowReader) -> str:
    """The format of the first row that shows one.

    Raises:
        FormatError: none of the first rows does.
    """
    first: Rejection | None = None
    for number, content in islice(reader, _FIRST_ROWS):
        if isinstance(content, RowError):
            first = first or Rejection(number, content.code, content.detail)
            continue
        if name := tell_format(content):
            return name
        fields = ", ".join(f'"{name[:40]}"' for name in list(content)[:12]) or "none"
        first = first or Rejection(number, "missing_field", f"its fields are {fields}")
    if first is None:
        raise _without_rows()
    raise FormatError(
        f"{reader.unit} {first.line}: no known format: {first.detail}", hint=f"write rows with {EXPECTED}"
    )


def _without_rows() -> FormatError:
    return FormatError("the file has no rows", hint=f"write rows with {EXPECTED}")


class _Importer:
    """Turns rows into samples or rejections; remembers the ids that were used."""

    def __init__(self, format_name: str, subset: str, unit: str) -> None:
        self._read = READERS[format_name]
        self._subset = subset
        self._unit = unit
        self._seen: set[bytes] = set()  # 16 bytes an id, however long it is

    def outcomes(self, rows: RowReader) -> Iterator[Sample | Rejection]:
        for row in rows:
            try:
                yield self._sample(row)
            except RowError as error:
                yield Rejection(row.number, error.code, error.detail)

    def _sample(self, read: ReadRow) -> Sample:
        row = read.content
        if isinstance(row, RowError):
            raise row
        prompt, responses = conversation = self._read(row)
        check_conversation(conversation)
        sample_id = row_name(row, "id", f"{self._unit}-{read.number}")
        subset = row_name(row, "subset", self._subset)
        digest = hashlib.blake2b(sample_id.encode(), digest_size=16).digest()
        if digest in self._seen:
            raise RowError(
                "duplicate_id", f'the id "{sample_id[:80]}" is that of an earlier row; make it unique'
            )
        self._seen.add(digest)
        return Sample(sample_id, subset, prompt, responses, read.number)


@dataclass(slots=True)
class _Summary:
    """Counts while rows go by."""

    format: str
    unit: str
    rows: int = 0
    samples: int = 0
    scored: int = 0
    prompt_chars: int = 0
    response_chars: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    subsets: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    first_rejection: Rejection | None = None

    @property
    def rejected(self) -> int:
        return self.rows - self.samples

    def count(self, outcome: Sample | Rejection) -> None:
        self.rows += 1
        if isinstance(outcome, Rejection):
            self.codes[outcome.code] += 1
            self.first_rejection = self.first_rejection or outcome
            return
        self.samples += 1
        self.scored += all(response.reward is not None for response in outcome.responses)
        self.prompt_chars += sum(len(message.content) for message in outcome.prompt)
        self.response_chars += sum(len(response.text) for response in outcome.responses)
        self.lengths[len(outcome.responses)] += 1
        self.subsets[outcome.subset] += 1

    def require_samples(self) -> None:
        if self.samples:
            return
        first = self.first_rejection
        if first is None:
            raise _without_rows()
        reasons = ", ".join(f"{count} {code}" for code, count in self.codes.most_common(4))
        raise NothingUsable(
            f"{self.unit} {first.line}: {first.detail}",
            hint=f"none of the {self.rows} rows can be used as {self.format} ({reasons}); correct them",
            code=first.code,
            summary=self._counts(),
        )

    def as_dict(self) -> dict[str, Any]:
        responses = sum(length * count for length, count in self.lengths.items())
        return {
            **self._counts(),
            "mean_prompt_chars": round(self.prompt_chars / self.samples, 1),
            "mean_response_chars": round(self.response_chars / responses, 1),
        }

    def _counts(self) -> dict[str, Any]:
        return {
            "format": self.format,
            "rows": self.rows,
            "samples": self.samples,
            "rejected": self.rejected,
            "responses_per_sample": {str(length): self.lengths[length] for length in sorted(self.lengths)},
            "subsets": {name: self.subsets[name] for name in sorted(self.subsets)},
            "scored": self.scored,
        }
