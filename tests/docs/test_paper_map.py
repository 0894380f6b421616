"""Every function and every test that docs/paper-map.md names exists."""

from __future__ import annotations

import ast
import importlib
import re

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "paper-map.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `([\w.]+):(\w+)` \| `([\w./]+)::(\w+)` \|$", PAGE, re.M)
EQUATIONS = {1, *range(5, 19)}


def test_every_line_of_the_table_is_a_row() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert len(lines) - 2 == len(ROWS)  # the head and the rule under it


def test_no_equation_is_missing() -> None:
    named = {int(number) for place, *_ in ROWS if "eq" in place for number in re.findall(r"\d+", place)}
    assert named == EQUATIONS


@pytest.mark.parametrize(("module", "name"), sorted({(row[2], row[3]) for row in ROWS}))
def test_the_function_exists(module: str, name: str) -> None:
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize(("path", "name"), sorted({(row[4], row[5]) for row in ROWS}))
def test_the_test_exists(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
