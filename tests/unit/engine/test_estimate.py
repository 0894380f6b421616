"""Estimates against figures worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deft_engine.estimate import DataFacts, Estimator, StageCost, model_shape
from deft_engine.plan import DatasetRef, External, Made, Plan, Source, plan_dataset
from deft_engine.planning import plan_job
from deft_engine.specs import job_spec_adapter
from deft_engine.stages import ImportSpec

UPLOAD = DatasetRef(External("upload:abc", "abc"), ImportSpec())
SUMMARY = {
    "responses_per_sample": {"2": 30, "4": 10},
    "subsets": {"x": 30, "y": 10},
    "mean_prompt_chars": 400.0,  # 100 tokens
    "mean_response_chars": 200.0,  # 50 tokens
}


class Names:
    def dataset(self, name: str, pointer: str) -> DatasetRef:
        return UPLOAD

    def model(self, name: str, revision: str | None, pointer: str) -> Source:
        return Made("f" * 64, "model") if name == "made" else External(name, name)


def costs(spec: dict[str, object], root: External | None = None) -> dict[str, StageCost]:
    plan = plan_job(job_spec_adapter.validate_python(spec), Names())
    facts = {plan_dataset(UPLOAD).fingerprint: DataFacts.of_summary(SUMMARY)}
    return {cost.stage: cost for cost in Estimator(plan, facts, lambda made: root).costs()}


def align(**fields: object) -> dict[str, object]:
    return {"kind": "align", "dataset": "d", "model": {"base": "builtin:tiny"}, **fields}


def test_tiny_has_its_parameters() -> None:
    shape = model_shape("builtin:tiny")
    assert shape is not None
    # Embeddings 2048 x 128; per layer q, k, v, o 4 x 128 x 128 and the gated MLP 3 x 128 x 384.
    assert shape.parameters == 262_144 + 4 * (65_536 + 147_456)


def test_plain_training_takes_every_sample() -> None:
    training = {"epochs": 3, "batch_size": 4, "gradient_accumulation": 2}
    cost = costs(align(training=training))["train"]
    assert (cost.samples, cost.steps) == (40, 15)  # 3 epochs of ceil(40 / 8)
    # A sample: a prompt of 100 and, for DPO on the best and the worst, 2 responses of 50.
    assert cost.tokens == 3 * 40 * 200
    assert cost.seconds == pytest.approx(6 * 1_114_112 * 24_000 / 1e11)


@pytest.mark.parametrize(
    ("fields", "responses"),
    # (30 x 2 + 10 x 4) / 40 = 2.5 responses of a sample
    [
        ({"method": {"name": "sft"}}, 1),
        ({"method": {"name": "dpo"}}, 2),
        ({"method": {"name": "dpo", "pairs": "all"}}, 2.5),
        ({"method": {"name": "pro"}}, 2.5),
        ({"method": {"name": "sft"}, "deft": {"a": 100, "c": 0, "on": "all"}}, 2.5),
    ],
)
def test_training_counts_the_responses_that_it_looks_at(fields: dict[str, object], responses: float) -> None:
    assert costs(align(**fields))["train"].tokens == 40 * (100 + responses * 50)


def test_max_steps_counts_whatever_the_epochs() -> None:
    cost = costs(align(training={"max_steps": 2, "batch_size": 4}))["train"]
    assert (cost.steps, cost.tokens) == (2, 8 * 200)
    cost = costs(align(training={"max_steps": 7, "batch_size": 16}))["train"]  # 2 epochs of 3 steps, and 1
    assert (cost.steps, cost.tokens) == (7, (2 * 40 + 16) * 200)


@pytest.mark.parametrize(
    ("levels", "samples"),
    # a = 10 %: ceil(3) + ceil(1); c = 20 %: 6 + 2; the rest is B.
    [(["A"], 4), (["C"], 8), (["B"], 28), (["A", "B", "C"], 40)],
)
def test_deft_trains_on_its_levels(levels: list[str], samples: int) -> None:
    found = costs(align(deft={"a": 10, "c": 20, "levels": levels, "grader": {"name": "scores"}}))
    assert found["train"].samples == found["reference"].samples == samples


def test_an_8_bit_optimiser_takes_6_bytes_less_of_a_parameter() -> None:
    plain, small = (
        costs(align(training={"optimizer": optimizer}))["train"].memory_bytes
        for optimizer in ("adamw", "adamw_8bit")
    )
    assert plain - small == 6 * (2048 * 128 + 4 * 128 * (4 * 128 + 3 * 384))


def test_prompts_make_room_in_a_short_context() -> None:
    cost = costs(align(training={"max_length": 80}))["train"]
    assert cost.tokens == 40 * (30 + 2 * 50)


def test_scoring_only_what_is_needed() -> None:
    grader = {"name": "reward_model", "model": "builtin:tiny"}
    needed = costs(align(deft={"grader": {**grader, "scope": "needed"}}))["score"]
    everything = costs(align(deft={"grader": {**grader, "scope": "all"}}))["score"]
    assert (needed.tokens, everything.tokens) == (40 * 150, 40 * 225)


def test_two_models_cost_twice_and_a_tokenizer_no_device() -> None:
    one = costs(align(deft={"grader": {"name": "distribution", "difference": True}}))["score"]
    two = costs(align(deft={"grader": {"name": "implicit", "policy": "builtin:tiny"}}))["score"]
    assert one.tokens == two.tokens == 40 * 200
    assert one.seconds is not None
    assert two.seconds == 2 * one.seconds
    assert two.memory_bytes == one.memory_bytes
    assert costs(align(deft={"grader": {"name": "length"}}))["score"].memory_bytes is None


def test_generation_is_bounded_by_samples() -> None:
    found = costs(align(evaluation={"samples": 7, "max_new_tokens": 20}))
    assert (found["generate"].samples, found["generate"].tokens) == (7, 7 * 120)
    assert costs(align(evaluation={"samples": None}))["generate"].samples == 40


def test_the_model_of_another_job_is_as_large_as_what_it_was_trained_from() -> None:
    spec = align(model={"base": "made"})
    assert costs(spec)["train"].memory_bytes is None
    known = costs(spec, root=External("builtin:tiny", "t"))["train"]
    assert known.memory_bytes == costs(align())["train"].memory_bytes


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    assert costs(align(model={"base": "hub:org/name@main"}))["train"].seconds is None
    plan = plan_job(job_spec_adapter.validate_python(align()), Names())
    assert isinstance(plan, Plan)
    assert all(cost.tokens is None for cost in Estimator(plan, {}, lambda made: None).costs())
    for content in ("", "[]", "{}", '{"hidden_size": "x"}'):
        (tmp_path / "config.json").write_text(content)
        assert model_shape(f"path:{tmp_path}") is None
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "vocab_size": 10, "intermediate_size": 16}
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    shape = model_shape(f"path:{tmp_path}")
    assert shape is not None
    assert shape.parameters == 80 + 2 * 8 * (32 + 48)


def test_gradient_checkpointing_keeps_one_value_a_layer() -> None:
    plain, again = (
        costs(align(training={"batch_size": 4, "gradient_checkpointing": on}))["train"].memory_bytes
        for on in (False, True)
    )
    assert plain is not None
    assert again is not None
    # Four samples of 200 tokens; tiny has 4 layers of 128 units: 4 x 17 values, or 4 and those of one layer.
    assert plain - again == pytest.approx(4 * 4 * 200 * 128 * (4 * 17 - (4 + 17)))
