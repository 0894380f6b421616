"""How ``deft run`` tells its end: text for people, or one JSON object for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from deft_engine.errors import DeftError, SpecError
from deft_engine.evaluators import decimals
from deft_engine.report import REPORT, all_warnings


class Report(Protocol):
    """Is told how the job ended, once."""

    def succeeded(self, out: Path, manifest: dict[str, Any]) -> None: ...

    def interrupted(self, out: Path) -> None: ...

    def failed(self, error: dict[str, Any]) -> None: ...


def error_object(error: DeftError) -> dict[str, Any]:
    """``code, message, hint, retryable``, and the ``pointer`` of what is wrong in the spec."""
    pointer = {"pointer": error.pointer} if isinstance(error, SpecError) and error.pointer else {}
    return error.as_dict() | pointer


class JsonReport:
    """One JSON object on standard output: ``status``, and ``results`` or ``error``."""

    def succeeded(self, out: Path, manifest: dict[str, Any]) -> None:
        _print_json({
            "status": "succeeded",
            "out": str(out),
            "results": {entry["stage"]: entry["result"] for entry in manifest["stages"]},
            "artifacts": manifest["artifacts"],
            "warnings": all_warnings(manifest),
        })  # fmt: skip

    def interrupted(self, out: Path) -> None:
        _print_json({"status": "interrupted", "out": str(out)})

    def failed(self, error: dict[str, Any]) -> None:
        _print_json({"status": "failed", "error": error})


class TextReport:
    """The results on standard output, what went wrong on standard error."""

    def __init__(self) -> None:
        self._console = Console()
        self._errors = Console(stderr=True)

    def succeeded(self, out: Path, manifest: dict[str, Any]) -> None:
        for entry in manifest["stages"]:
            if entry["stage"] == "import" and entry["result"].get("rejected"):
                ledger = out / entry["folder"] / "out" / "ledger.jsonl"
                self._say(f"{entry['result']['rejected']} rows were not used; {ledger} says why")
            if entry["stage"] == "grade":
                counts = ", ".join(f"{level}: {n}" for level, n in entry["result"]["levels"].items())
                self._say(f"levels {counts}")
            if entry["stage"] in ("evaluate", "reward_quality"):
                self._console.print(_results_table(entry["result"]))
                for name, score in entry["result"]["total"].items():
                    self._say(f"{name}: {score['signature']}")
        for warning in all_warnings(manifest):
            self._console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
        names = sorted({name.split("/")[0] + ("/" if "/" in name else "") for name in manifest["artifacts"]})
        self._say(f"done: {out} holds {REPORT}, manifest.json, {', '.join(names)}")

    def interrupted(self, out: Path) -> None:
        self._errors.print(
            f"stopped; work so far is in {out}, and the same command goes on with it",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def failed(self, error: dict[str, Any]) -> None:
        place = f"{error['stage']}: " if "stage" in error else ""
        lines = [f"error: {place}{error['message']}"]
        lines += [f"  {error['hint']}"] if error["hint"] else []
        lines += [f"  at {error['pointer']} in the spec"] if "pointer" in error else []
        lines += [f"  log: {error['log']}"] if "log" in error else []
        self._errors.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _results_table(results: dict[str, Any]) -> Table:
    """Figures by subset and in total."""
    table = Table(Column("subset", overflow="fold"))
    for name in ("n", *results["total"]):
        table.add_column(name, justify="right")
    for subset, scores in [*results["subsets"].items(), ("Total", results["total"])]:
        values = [
            s["reason"] if s["value"] is None else f"{s['value']:.{decimals(name)}f}"
            for name, s in scores.items()
        ]
        table.add_row(subset, str(max(s["n"] for s in scores.values())), *values)
    return table


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))
