"""docs/experiments: every row of its tables is made of the JSON files beside it."""

from __future__ import annotations

import json
import re
from statistics import fmean
from typing import Any

import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "experiments"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
FOUND = {path.stem: json.loads(path.read_bytes()) for path in FOLDER.glob("*.json")}
ARMS = [(name, arm) for name, found in FOUND.items() for arm in found["experiment"]["arms"]]
QUALITIES = [
    (name, model, data)
    for name, found in FOUND.items()
    for model, tried in found["reward_models"].items()
    for data in tried
]
OMEGAS = [(name, arm) for name, found in FOUND.items() for arm in found["omegas"]]


def section(name: str) -> str:
    """What the page says of an experiment: the section that links to its report."""
    (found,) = [each for each in re.split(r"^## ", PAGE, flags=re.MULTILINE) if f"({name}.html)" in each]
    return found


def interval(figure: dict[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{low:.2f} to {high:.2f}"


def scored(arm: dict[str, Any]) -> str:
    """An arm's row among the figures."""
    total = arm["total"]
    reward, compared = total["reward"], total["reward"]["difference"]
    cells = [arm["name"], f"{reward['value']:.2f}", interval(reward)]
    if compared is None:
        cells += ["", "", ""]
    else:
        cells += [f"{compared['value']:+.2f}", interval(compared), f"{compared['p_corrected']:.3f}"]
    cells += [f"{total[name]['value']:.2f}" for name in ("bleu_pro_char", "length")]
    return f"| {' | '.join(cells)} |"


def cost(arm: dict[str, Any]) -> str:
    """An arm's row among the costs."""
    spent = arm["cost"]
    cells = [
        arm["name"],
        f"{spent['trained_share']:.1%}",
        f"{spent['steps']:.0f}",
        f"{spent['trained_tokens']:,.0f}",
        f"{spent['tokens']:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def quality(name: str, model: str, data: str) -> str:
    """A reward model's row for a dataset."""
    total = FOUND[name]["reward_models"][model][data]["reward_quality"]["total"]
    accuracy, longer = total["accuracy"], total["longer_wins"]
    return f"| {model} | {data} | {accuracy['value']:.1%} | {longer['value']:.1%} | {accuracy['n']} |"


@pytest.mark.parametrize(("name", "arm"), ARMS)
def test_an_arm_has_its_figures(name: str, arm: dict[str, Any]) -> None:
    assert scored(arm) in section(name)


@pytest.mark.parametrize(("name", "arm"), [(name, arm) for name, arm in ARMS if arm["kind"] == "align"])
def test_an_arm_has_its_costs(name: str, arm: dict[str, Any]) -> None:
    assert cost(arm) in section(name)


@pytest.mark.parametrize(("name", "model", "data"), QUALITIES)
def test_a_reward_model_has_its_quality(name: str, model: str, data: str) -> None:
    assert quality(name, model, data) in section(name)


@pytest.mark.parametrize(("name", "arm"), OMEGAS)
def test_the_page_says_what_omega_an_arm_took(name: str, arm: str) -> None:
    seeds = [row["omega"] for row in FOUND[name]["omegas"][arm]]
    assert re.search(rf"{arm} (took an omega )?of {fmean(seeds):.1f}\b", section(name))


@pytest.mark.parametrize("name", FOUND)
def test_the_page_says_how_large_the_experiment_was(name: str) -> None:
    data = FOUND[name]["data"]
    assert re.search(rf"{data['trained_on']} (pairs|samples)", section(name))
    assert f"{data['evaluated_on']} prompts" in section(name)
