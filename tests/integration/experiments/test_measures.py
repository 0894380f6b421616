"""Figures that models are needed for, in an experiment's table: real evaluations with the built-in model."""

from __future__ import annotations

from typing import Any

from tests.api_world import Api
from tests.experiment_world import PROMPTS, create, evaluate

EVALUATION = {
    "samples": None,
    "max_new_tokens": 4,
    "distinct_n": True,
    "perplexity": True,
    "divergence": {"reference": "tiny"},
}
ARMS = [{"name": "0-shot", "kind": "evaluate"}, {"name": "float32", "kind": "evaluate"}]


def answers(arm: int, seed: int | None, row: dict[str, Any]) -> str:
    return f"{row['id']} says something of its own" if arm else "always the same"


def test_the_price_of_alignment_stands_in_the_table(api: Api) -> None:
    base = {"model": {"base": "tiny"}, "evaluation": EVALUATION}
    dataset = api.dataset(PROMPTS)["id"]
    arms = [ARMS[0], {**ARMS[1], "model": {"dtype": "float32"}}]
    made = create(api, dataset, base=base, arms=arms, baseline="0-shot")
    evaluate(made, [0, 1], answers)
    table = api.get(f"/experiments/{made['id']}/results").json()
    plain, other = (arm["total"] for arm in table["arms"])
    assert plain["divergence"]["value"] == 0, "the reference is the model itself"
    assert plain["divergence"]["interval"] == [0, 0]
    assert "|reference:" in plain["divergence"]["signature"]
    assert "|reference:" not in plain["perplexity"]["signature"]
    assert plain["perplexity"]["value"] > 1
    low, high = plain["perplexity"]["interval"]
    assert low < plain["perplexity"]["value"] < high
    assert "template:hh" in plain["perplexity"]["signature"]
    assert "signatures differ" in other["perplexity"]["difference"]["reason"]
    assert plain["distinct_1"]["value"] < other["distinct_1"]["value"]
    assert plain["distinct_1"]["interval"] is None
    assert plain["distinct_1"]["reason"]
    report = api.get(f"/experiments/{made['id']}/report.html").text
    assert "Divergence" in report
    assert "Perplexity" in report
    assert "distinct_3" in api.get(f"/experiments/{made['id']}/results.csv").text
    tex = api.get(f"/experiments/{made['id']}/results.tex").text
    assert "0.0000" in tex, "four decimals of a divergence"
