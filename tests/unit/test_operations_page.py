"""docs/operations.md lists every setting, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from app.settings import Settings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()
TABLE = PAGE.split("## Settings")[1].split("\n## ")[0]
ROWS = dict(re.findall(r"^\| `(DEFT_[A-Z_]+)` \| ([^|]+) \|", TABLE, flags=re.M))
UNITS = {"MiB": 2**20, "GiB": 2**30}


def test_the_table_lists_exactly_the_settings() -> None:
    assert set(ROWS) == {f"DEFT_{name.upper()}" for name in Settings.model_fields}


def test_the_numbers_in_the_table_are_the_defaults() -> None:
    for name, field in Settings.model_fields.items():
        written = ROWS[f"DEFT_{name.upper()}"].strip()
        default = field.default
        if isinstance(default, bool):
            assert written == str(default).lower(), name
        elif isinstance(default, int | float):
            number, _, unit = written.partition(" ")
            assert float(number) * UNITS.get(unit, 1) == default, name


def test_no_other_variable_is_named_on_the_page() -> None:
    known = set(ROWS) | {"DEFT_TEST_DATABASE_URL", "DEFT_TEST_REDIS_URL"}
    known |= {"DEFT_HOSTFILE", "DEFT_REMOTE_SHELL"}  # the engine's, not the service's
    known |= {"DEFT_ENDPOINT_KEY", "DEFT_ENDPOINT_KEY_OPENAI"}  # the beginning of names, and an example
    assert set(re.findall(r"\bDEFT_[A-Z_]*[A-Z]\b", PAGE)) <= known
