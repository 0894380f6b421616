"""Datasets as the API shows them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal

from app.api.schemas import Answer
from app.db.models import Dataset, DatasetStatus
from deft_engine.types import Level, Sample


class DatasetError(Answer):
    """Why a dataset is invalid."""

    code: str
    message: str
    hint: str
    line: int | None
    """Line of the file, where the error has one."""


class DatasetView(Answer):
    """A dataset; the counts are there once it is ready."""

    id: str
    object: Literal["dataset"] = "dataset"
    name: str
    status: DatasetStatus
    sha256: str
    """Of the bytes as sent, or of what was asked of a hub."""
    hub: dict[str, Any] | None
    """What was asked of a hub; once ready with the commit and the files."""
    size: int
    format: str
    """As recognised; while processing, as asked for."""
    subset: str | None
    rows: int | None
    samples: int | None
    rejected: int | None
    responses_per_sample: dict[str, int] | None
    subsets: dict[str, int] | None
    scored: int | None
    """Samples whose every response carries a score."""
    error: DatasetError | None
    created_at: datetime
    links: dict[str, str]


class LedgerEntry(Answer):
    """A row that was not used."""

    line: int | None
    code: str
    detail: str


class MessageView(Answer):
    """A turn of a prompt."""

    role: Literal["system", "user", "assistant"]
    content: str


class ResponseView(Answer):
    """A response; ``reward`` is the score that came with the file."""

    text: str
    reward: float | None


class SampleView(Answer):
    """A prompt and its responses, best first as annotated."""

    id: str
    subset: str
    prompt: list[MessageView]
    responses: list[ResponseView]
    line: int
    level: Level | None
    """By the newest grading of the dataset, or that of `job`."""


def view_dataset(dataset: Dataset) -> DatasetView:
    """A dataset as the API shows it."""
    summary: dict[str, Any] = dataset.summary or {}
    counted = ("rows", "samples", "rejected", "responses_per_sample", "subsets", "scored")
    address = f"/datasets/{dataset.id}"
    return DatasetView(
        id=dataset.id,
        name=dataset.name,
        status=dataset.status,
        sha256=dataset.sha256,
        hub=None if dataset.hub is None else {**dataset.hub, **summary.get("hub", {})},
        size=dataset.size,
        format=summary.get("format", dataset.requested_format),
        subset=dataset.subset,
        **{name: summary.get(name) for name in counted},
        error=view_error(dataset),
        created_at=dataset.created_at,
        links={
            "self": address,
            "validation": f"{address}/validation",
            "samples": f"{address}/samples",
            "view": f"{address}/view",
        },
    )


def view_sample(sample: Sample, level: str | None) -> SampleView:
    """A sample, with its level where it is graded."""
    return SampleView(
        id=sample.id,
        subset=sample.subset,
        prompt=[MessageView.model_validate(message) for message in sample.prompt],
        responses=[ResponseView.model_validate(response) for response in sample.responses],
        line=sample.line,
        level=Level(level) if level else None,
    )


def view_error(dataset: Dataset) -> DatasetError | None:
    """Why a dataset is invalid, with the line that the message starts with."""
    if dataset.error is None:
        return None
    message = str(dataset.error.get("message", ""))
    place = re.match(r"(?:line|row) (\d+)\b", message)
    return DatasetError(
        code=str(dataset.error.get("code", "invalid_data")),
        message=message,
        hint=str(dataset.error.get("hint", "")),
        line=int(place.group(1)) if place else None,
    )
