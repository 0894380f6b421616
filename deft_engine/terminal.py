"""What ``deft run`` shows while it works: bars on a terminal, plain lines elsewhere. On standard error."""

from __future__ import annotations

import time
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_EVERY = 10.0  # seconds between plain lines of one stage
_SHOWN = ("loss", "rewards/accuracies", "tokens_per_second", "score/responses_per_second",
          "generate/tokens_per_second", "eval/reward", "eval/bleu", "eval/divergence",
          "eval/perplexity")  # fmt: skip


class Display(Protocol):
    """Is told of stages and their events (``deft_engine.events``)."""

    def stage(self, number: int, total: int, name: str, *, reused: bool) -> None: ...

    def event(self, event: dict[str, Any]) -> None: ...

    def finish(self, status: str, seconds: float) -> None: ...

    def close(self) -> None: ...


def open_display() -> Display:
    """Bars where standard error is a terminal, else lines."""
    console = Console(stderr=True)
    return _Bars(console) if console.is_terminal else _Lines(console)


class _Bars:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
        )
        self._progress.start()
        self._task: TaskID | None = None

    def stage(self, number: int, total: int, name: str, *, reused: bool) -> None:
        figures = "reused" if reused else ""
        self._task = self._progress.add_task(name, total=1 if reused else None, figures=figures)
        if reused:
            self._progress.update(self._task, completed=1)

    def event(self, event: dict[str, Any]) -> None:
        if self._task is None:
            return
        if event["type"] == "progress":
            self._progress.update(self._task, completed=event["step"], total=event["total"])
        elif event["type"] == "metrics":
            self._progress.update(self._task, figures=_figures(event["values"]))
        elif event["type"] == "log" and event["level"] == "warning":
            self._progress.print(f"[yellow]warning:[/] {escape(event['message'])}")

    def finish(self, status: str, seconds: float) -> None:
        if self._task is not None and status == "succeeded":
            total = self._progress.tasks[self._task].total or 1
            self._progress.update(self._task, completed=total, total=total)

    def close(self) -> None:
        self._progress.stop()


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._name = ""
        self._said = 0.0
        self._figures = ""

    def stage(self, number: int, total: int, name: str, *, reused: bool) -> None:
        self._name = f"[{number}/{total}] {name}"
        self._said = time.monotonic()
        self._figures = ""
        if reused:
            self._say("reused")

    def event(self, event: dict[str, Any]) -> None:
        if event["type"] == "metrics":
            self._figures = _figures(event["values"])
        elif event["type"] == "log" and event["level"] == "warning":
            self._say(f"warning: {event['message']}")
        elif event["type"] == "progress" and time.monotonic() - self._said > _EVERY:
            self._said = time.monotonic()
            self._say(f"{event['step']}/{event['total'] or '?'} {self._figures}".rstrip())

    def finish(self, status: str, seconds: float) -> None:
        self._say(f"{status} in {seconds:.1f} s {self._figures}".rstrip())

    def close(self) -> None:
        pass

    def _say(self, text: str) -> None:
        self._console.print(f"{self._name}: {text}", markup=False, highlight=False, soft_wrap=True)


def _figures(values: dict[str, float | str]) -> str:
    known = {name: values[name] for name in _SHOWN if name in values}
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float | int) else f"{name} {value}"
        for name, value in known.items()
    )
