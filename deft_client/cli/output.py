"""How commands speak: JSON for machines, tables and bars for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from deft_client.models import Estimate, Job

Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]

console = Console()
notes = Console(stderr=True)


def fail(message: str) -> int:
    """Say what went wrong; returns the exit status."""
    notes.print(f"deft: {message}", style="red", markup=False, highlight=False)
    return 1


def plain(value: Any) -> Any:
    """An answer as JSON can hold it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value


def print_json(value: Any) -> None:
    """An answer on stdout, indented."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, indent=2) + "\n")


def show(value: BaseModel | dict[str, Any], as_json: bool) -> None:
    """One thing: JSON, or a line per field."""
    if as_json:
        print_json(value)
        return
    for name, entry in plain(value).items():
        if entry not in (None, "", [], {}):
            console.print(f"{name:>22}  {entry}", markup=False, highlight=False, soft_wrap=True)


def show_list(rows: Sequence[BaseModel], columns: Sequence[str], as_json: bool) -> None:
    """Many things: JSON, or a table of some of their fields."""
    if as_json:
        print_json(rows)
        return
    show_table(columns, [[getattr(row, column, None) for column in columns] for row in rows])


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Rows for people."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*map(_cell, row))
    console.print(table)


def show_estimate(estimate: Estimate, as_json: bool) -> None:
    """A dry run: JSON, or a table of its stages with the totals and what they rest on."""
    if as_json:
        print_json(estimate)
        return
    table = Table("stage", show_footer=True)
    table.columns[0].footer = "total" if estimate.complete else "total of what is known"
    for name, total in (
        ("samples", ""),
        ("steps", _count(estimate.steps)),
        ("tokens", _count(estimate.tokens)),
        ("memory", _bytes(estimate.memory_bytes)),
        ("time", _time(estimate.seconds)),
    ):
        table.add_column(name, total, justify="right")
    for stage in estimate.stages:
        table.add_row(
            f"{stage.stage} (reused)" if stage.reused else stage.stage,
            _count(stage.samples),
            _count(stage.steps),
            _count(stage.tokens),
            _bytes(stage.memory_bytes),
            _time(stage.seconds),
        )
    console.print(table)
    for assumption in estimate.assumptions:
        console.print(f"assumed: {assumption}", markup=False, highlight=False, soft_wrap=True)
    for warning in estimate.warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _bytes(number: int | None) -> str:
    return "?" if number is None else decimal(number)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _cell(value: Any) -> str:
    return "" if value is None else str(value).replace("[", r"\[")


@contextmanager
def bars(as_json: bool = False) -> Iterator[Progress]:
    """Progress bars on stderr; none when a machine reads."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=notes, disable=as_json or not notes.is_terminal) as progress:
        yield progress


class JobBars:
    """A job's progress as one bar per stage; give it to ``jobs.wait`` as ``on_progress``."""

    def __init__(self, progress: Progress, label: str) -> None:
        self._progress = progress
        self._label = label
        self._tasks: dict[str, Any] = {}

    def __call__(self, job: Job) -> None:
        for stage in job.stages:
            if stage.status == "waiting" or stage.run in self._tasks:
                continue
            note = " (reused)" if stage.reused else ""
            task = self._progress.add_task(f"{self._label}: {stage.name}{note}", total=None)
            self._tasks[stage.run] = task
        for stage in job.stages:
            if stage.run not in self._tasks:
                continue
            task = self._tasks[stage.run]
            if stage.status == "succeeded":
                total = self._progress.tasks[self._progress.task_ids.index(task)].total or 1
                self._progress.update(task, total=total, completed=total)
            elif job.progress and job.progress.stage == stage.name and job.progress.total:
                self._progress.update(task, total=job.progress.total, completed=job.progress.step or 0)
