"""What the end-to-end tests send: small data with one broken line, and the common parts of jobs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deft_client.demo_data import generate

BROKEN_LINE = 41
DEFT_A = 20
STEPS = 12
EVALUATED = 12
TRAINING = {"max_steps": STEPS, "batch_size": 8, "learning_rate": 1e-3, "max_length": 128}

_TRAIN_ROWS, _EVAL_ROWS = 80, 24


@dataclass(frozen=True)
class Files:
    """Preference data on this machine."""

    train_rows: list[dict[str, Any]]
    train: Path
    evaluation: Path


def write_files(folder: Path) -> Files:
    """The rows of ``train`` with a line that is no JSON between them, and held-out rows."""
    rows = list(generate(_TRAIN_ROWS + _EVAL_ROWS, seed=5))
    train = list(_lines(rows[:_TRAIN_ROWS]))
    train.insert(BROKEN_LINE - 1, '{"prompt": "cut off\n')
    files = Files(rows[:_TRAIN_ROWS], folder / "train.jsonl", folder / "evaluation.jsonl")
    files.train.write_text("".join(train), encoding="utf-8")
    files.evaluation.write_text("".join(_lines(rows[_TRAIN_ROWS:])), encoding="utf-8")
    return files


def _lines(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    return (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
