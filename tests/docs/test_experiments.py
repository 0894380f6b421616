"""docs/experiments: every row of its tables is made of the JSON beside it."""

from __future__ import annotations

import json
import re
from statistics import fmean
from typing import Any

import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "experiments"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
FOUND = json.loads((FOLDER / "rmb.json").read_bytes())
ARMS = {arm["name"]: arm for arm in FOUND["experiment"]["arms"]}


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


def quality(model: str, data: str) -> str:
    """A reward model's row for a dataset."""
    total = FOUND["reward_models"][model][data]["reward_quality"]["total"]
    accuracy, longer = total["accuracy"], total["longer_wins"]
    return f"| {model} | {data} | {accuracy['value']:.1%} | {longer['value']:.1%} | {accuracy['n']} |"


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_has_its_figures(name: str) -> None:
    assert scored(ARMS[name]) in PAGE


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if arm["kind"] == "align"])
def test_an_arm_has_its_costs(name: str) -> None:
    assert cost(ARMS[name]) in PAGE


@pytest.mark.parametrize("model", FOUND["reward_models"])
@pytest.mark.parametrize("data", ["RMB", "HH"])
def test_a_reward_model_has_its_quality(model: str, data: str) -> None:
    assert quality(model, data) in PAGE


@pytest.mark.parametrize("arm", FOUND["omegas"])
def test_the_page_says_what_omega_an_arm_took(arm: str) -> None:
    seeds = [row["omega"] for row in FOUND["omegas"][arm]]
    assert re.search(rf"{arm} (took an omega )?of {fmean(seeds):.1f}\b", PAGE)


def test_the_page_says_how_large_the_experiment_was() -> None:
    data = FOUND["data"]
    for text in (f"{data['trained_on']} pairs", f"{data['evaluated_on']} prompts"):
        assert text in PAGE
