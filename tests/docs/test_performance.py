"""docs/performance.md: every measured figure is the one in the JSON that the row names."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
ROWS = [
    ([cell.strip() for cell in line.strip("|").split("|")], line)
    for line in PAGE.splitlines()
    if re.search(r"\| `[a-z0-9_]+\.json: ", line)
]


def value_at(source: str) -> Any:
    """What `file.json: key / key` names."""
    name, _, path = source.strip("`").partition(": ")
    found: Any = json.loads((ROOT / "benchmarks" / "results" / name).read_bytes())
    for key in path.split(" / "):
        found = found[int(key)] if isinstance(found, list) else found[key]
    return found


def test_the_page_has_measurements() -> None:
    assert len(ROWS) > 10


@pytest.mark.parametrize("row", [cells for cells, _ in ROWS], ids=[cells[-1] for cells, _ in ROWS])
def test_a_figure_is_that_of_its_source(row: list[str]) -> None:
    measured, source = row[2], row[-1]
    number = re.search(r"-?[\d,]*\.?\d+", measured)
    assert number is not None, measured
    shown = number.group().replace(",", "")
    decimals = len(shown.partition(".")[2])
    value = float(value_at(source))
    if measured.endswith("%") and "percent" not in source:
        value *= 100
    assert round(value, decimals) == float(shown)


def test_every_result_is_named() -> None:
    named = set(
        re.findall(r"`([a-z0-9_]+\.json)", PAGE + (ROOT / "docs" / "log.md").read_text(encoding="utf-8"))
    )
    named |= set(re.findall(r"results/([a-z0-9_]+\.json)", (ROOT / "README.md").read_text(encoding="utf-8")))
    named |= set(
        re.findall(r"results/([a-z0-9_]+\.json)", (ROOT / "docs" / "log.md").read_text(encoding="utf-8"))
    )
    assert {path.name for path in (ROOT / "benchmarks" / "results").glob("*.json")} <= named
