"""``deft demo``: a whole service in a temporary home, and DEFT end to end through its public API.

upload -> reward models -> grade -> Q_diff -> DPO and DEFT-DPO -> generate -> evaluate -> a table.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from deft_client.cli.output import JobBars, bars, console, notes, print_json
from deft_client.client import DeftClient
from deft_client.demo_data import write_jsonl
from deft_client.demo_service import temporary_service
from deft_client.errors import DeftClientError
from deft_client.models import Dataset, Job

SEED = 7


@dataclass(frozen=True)
class Recipe:
    """What the demo asks for with one base model; small enough for two cores and a few minutes."""

    base: str
    samples: int
    """Training samples of the generator; a user's own data is taken whole."""
    eval_samples: int
    sft: dict[str, Any] | None
    """Training of the first model by SFT; None where the base model can write already."""
    reward: dict[str, Any]
    dpo: dict[str, Any]
    deft_a: float
    """Percent of Level A; the paper's 3.73 percent of so few samples would be a handful."""
    new_tokens: int
    note: str


_LENGTH = {"max_length": 192, "batch_size": 16}

TINY = Recipe(
    base="tiny",
    samples=1200,
    eval_samples=96,
    sft={**_LENGTH, "epochs": 3, "learning_rate": 3e-3, "lr_scheduler": "cosine", "warmup_steps": 20},
    reward={**_LENGTH, "epochs": 1, "learning_rate": 1e-3},
    dpo={**_LENGTH, "epochs": 1, "learning_rate": 1e-4},
    deft_a=15.0,
    new_tokens=64,
    note=(
        "`tiny` has about a million parameters and has seen nothing but this demo's sentences: the table "
        "shows that every part works, not that one method is better than another."
    ),
)


def _large(base: str) -> Recipe:
    length = {"max_length": 256, "batch_size": 4}
    return Recipe(
        base=base,
        samples=600,
        eval_samples=32,
        sft=None,
        reward={**length, "learning_rate": 1e-5, "max_steps": 20},
        dpo={**length, "learning_rate": 5e-6, "max_steps": 20},
        deft_a=15.0,
        new_tokens=48,
        note="20 steps of each method on a CPU: enough to see every part work, not to rank the methods.",
    )


def run(data: Path | None, model: str, *, keep: bool, as_json: bool) -> int:
    """Run the demo; returns the exit status."""
    recipe = TINY if model == "tiny" else _large(model)
    with temporary_service(keep) as service:
        files = _files(service.home, data, recipe)
        _show_rows(_compare(service.client, service.url, recipe, files, as_json), recipe, as_json)
    return 0


@dataclass(frozen=True)
class _Files:
    train: Path
    evaluation: Path
    first_half: Path
    second_half: Path


def _files(home: Path, data: Path | None, recipe: Recipe) -> _Files:
    """The user's rows, or the generator's, in parts: the two reward models see different halves."""
    folder = home / "demo-data"
    folder.mkdir()
    if data is None:
        source = folder / "all.jsonl"
        write_jsonl(source, recipe.samples + recipe.eval_samples, SEED)
    else:
        source = data
    rows = _lines(source)
    held_out = min(recipe.eval_samples, max(1, len(rows) // 10))
    train = rows[:-held_out]
    parts = {
        "train": train,
        "evaluation": rows[-held_out:],
        "first_half": train[0::2],
        "second_half": train[1::2],
    }
    for name, lines in parts.items():
        (folder / f"{name}.jsonl").write_bytes(b"".join(lines))
    return _Files(**{name: folder / f"{name}.jsonl" for name in parts})


def _lines(path: Path) -> list[bytes]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        rows = [line if line.endswith(b"\n") else line + b"\n" for line in file if line.strip()]
    if len(rows) < 8:
        raise DeftClientError(f"{path} has {len(rows)} rows; the demo needs at least 8")
    return rows


def _compare(
    client: DeftClient, url: str, recipe: Recipe, files: _Files, as_json: bool
) -> list[tuple[str, Job]]:
    with bars(as_json) as progress:
        train = _upload(client, files.train, "demo")
        evaluation = _upload(client, files.evaluation, "demo, held out")
        halves = [_upload(client, path, path.stem) for path in (files.first_half, files.second_half)]
        base = recipe.base
        if recipe.sft is not None:
            sft = client.jobs.create(
                {
                    "kind": "align",
                    "name": "teach the language (SFT)",
                    "dataset": train.id,
                    "model": {"base": base},
                    "method": {"name": "sft"},
                    "deft": None,
                    "training": recipe.sft,
                }
            )
            notes.print(f"SFT: {url}/jobs/{sft.id}/dashboard", highlight=False, soft_wrap=True)
            base = f"job:{sft.id}"
            client.jobs.wait(sft.id, on_progress=JobBars(progress, "SFT"))
        r_train, r_eval = (_reward_model(client, recipe, base, half) for half in halves)
        jobs = _jobs(client, recipe, base, train, evaluation, f"job:{r_train.id}", f"job:{r_eval.id}")
        named = [("r_train", r_train), ("r_eval", r_eval), *jobs]
        for name, job in named:
            notes.print(f"{name}: {url}/jobs/{job.id}/dashboard", highlight=False, soft_wrap=True)
        ended = [(name, client.jobs.wait(job.id, on_progress=JobBars(progress, name))) for name, job in named]
    return ended[2:]


def _upload(client: DeftClient, path: Path, name: str) -> Dataset:
    dataset = client.datasets.wait(client.datasets.upload(path, name=name).id)
    if dataset.status == "invalid":
        raise DeftClientError(f"{path.name} cannot be used: {dataset.error}")
    notes.print(f"uploaded {name}: {dataset.samples} samples, {dataset.rejected} rows not used")
    return dataset


def _reward_model(client: DeftClient, recipe: Recipe, base: str, half: Dataset) -> Job:
    return client.jobs.create(
        {
            "kind": "reward_model",
            "name": f"reward model ({half.name})",
            "dataset": half.id,
            "model": {"base": base},
            "training": recipe.reward,
        }
    )


def _jobs(
    client: DeftClient,
    recipe: Recipe,
    base: str,
    train: Dataset,
    evaluation: Dataset,
    r_train: str,
    r_eval: str,
) -> list[tuple[str, Job]]:
    evaluated = {"reward_model": r_eval, "max_new_tokens": recipe.new_tokens, "samples": None}
    common = {
        "kind": "align",
        "dataset": train.id,
        "eval_dataset": evaluation.id,
        "model": {"base": base},
        "training": recipe.dpo,
        "evaluation": evaluated,
    }
    deft = {"a": recipe.deft_a, "grader": {"name": "reward_model", "model": r_train}}
    specs: dict[str, dict[str, Any]] = {
        "base model": {
            "kind": "evaluate",
            "eval_dataset": evaluation.id,
            "model": {"base": base},
            "evaluation": evaluated,
        },
        "DPO": {**common, "preset": "dpo"},
        "DEFT-DPO": {**common, "preset": "deft-dpo", "deft": deft},
    }
    return [(name, client.jobs.create({**spec, "name": name})) for name, spec in specs.items()]


def _show_rows(jobs: list[tuple[str, Job]], recipe: Recipe, as_json: bool) -> None:
    rows = [_row(name, job.result or {}) for name, job in jobs]
    if as_json:
        print_json({"rows": rows, "note": recipe.note})
        return
    table = Table("", "BLEU", "reward", "n", "training s", "steps", title="DEFT demo")
    for row in rows:
        table.add_row(
            row["name"],
            _number(row["bleu"]),
            _number(row["reward"]),
            str(row["n"]),
            _number(row["seconds"]),
            str(row["steps"] if row["steps"] is not None else "-"),
        )
    console.print(table)
    console.print(f"BLEU: {rows[0]['bleu_signature']}", markup=False, highlight=False)
    console.print(f"reward: {rows[0]['reward_signature']}", markup=False, highlight=False)
    console.print(recipe.note, markup=False)


def _row(name: str, result: dict[str, Any]) -> dict[str, Any]:
    total = result["evaluate"]["total"]
    train = result.get("train") or {}
    return {
        "name": name,
        "bleu": total["bleu"]["value"],
        "bleu_signature": total["bleu"]["signature"],
        "reward": total["reward"]["value"],
        "reward_signature": total["reward"]["signature"],
        "n": total["reward"]["n"],
        "seconds": train.get("seconds"),
        "steps": train.get("steps"),
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
