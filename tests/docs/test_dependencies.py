"""docs/dependencies.md names every package of pyproject.toml, and no other."""

from __future__ import annotations

import re
import tomllib
from itertools import chain

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
BROUGHT_BY_OTHERS = {"kombu"}  # comes with Celery, and is imported


def test_the_tables_list_the_packages_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    packages = {re.split(r"[\[><=~]", entry)[0] for entry in required}
    cells = re.findall(r"^\| ((?!package|-)[^|]+) \|", PAGE.split("## Not taken")[0], re.M)
    listed = {re.sub(r" \(.*\)", "", name) for cell in cells for name in re.split(r", (?![^(]*\))", cell)}
    assert listed - BROUGHT_BY_OTHERS == packages
