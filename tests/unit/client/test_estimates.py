"""A dry run's answer: the same fields on both sides, and a table that people can read."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from app import estimates
from deft_client import models
from deft_client.cli import output

STAGE = {"stage": "train", "fingerprint": "f" * 64, "reused": False, "samples": 1587, "steps": 199,
         "tokens": 1_234_567, "memory_bytes": 2_500_000_000, "seconds": 7260.0}  # fmt: skip
UNKNOWN = {**dict.fromkeys(STAGE), "stage": "import", "fingerprint": "e" * 64, "reused": True}


def estimate(**changed: Any) -> models.Estimate:
    whole = {"kind": "align", "spec": {}, "stages": [UNKNOWN, STAGE], "steps": 199, "tokens": 1_234_567,
             "memory_bytes": 2_500_000_000, "seconds": 7260.0, "complete": True,
             "assumptions": ["a token is 4 characters"], "warnings": ["no [eval] data"]}  # fmt: skip
    return models.Estimate.model_validate(whole | changed)


@pytest.mark.parametrize("name", ["Estimate", "StageEstimate"])
def test_the_client_knows_every_field_of_the_service(name: str) -> None:
    ours, theirs = getattr(models, name).model_fields, getattr(estimates, name).model_fields
    assert set(ours) == set(theirs)
    assert [str(ours[field].annotation) for field in ours if field != "stages"] == [
        str(theirs[field].annotation) for field in ours if field != "stages"
    ]


def printed(shown: models.Estimate, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    console = Console(width=120, record=True)
    monkeypatch.setattr(output, "console", console)
    output.show_estimate(shown, as_json=False)
    return console.export_text().splitlines()


def test_a_stage_is_a_row_and_the_totals_are_below(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(estimate(), monkeypatch)
    rows = [[cell.strip() for cell in line.strip("\u2502\u2503").split("\u2502")] for line in lines]
    assert ["import (reused)", "?", "?", "?", "?", "?"] in rows
    assert ["train", "1,587", "199", "1,234,567", "2.5 GB", "2 h 1 min"] in rows
    assert ["total", "", "199", "1,234,567", "2.5 GB", "2 h 1 min"] in rows
    assert lines[-2:] == ["assumed: a token is 4 characters", "warning: no [eval] data"]


def test_an_incomplete_total_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(estimate(complete=False, memory_bytes=None, seconds=59.0), monkeypatch)
    (total,) = (line for line in lines if "total of what is known" in line)
    assert "59 s" in total
    assert "?" in total
