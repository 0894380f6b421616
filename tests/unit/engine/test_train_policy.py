"""The stage ``train``: the loss of eq 18 against plain forms, levels, ranks, omega, and resuming."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from deft_engine.data.samples import read_index
from deft_engine.data.tokenise import tokenise
from deft_engine.events import read_events
from deft_engine.losses import DPO, SFT, Method
from deft_engine.models import load_policy
from deft_engine.run import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_SUCCEEDED
from deft_engine.scores import write_scores
from deft_engine.spec_sections import GradShare, LoraSpec, TrainingSpec
from deft_engine.stages import DistributionRewardSpec, ReferenceSpec, TrainSpec
from deft_engine.tokenizer import load_tokenizer, tokenizer_sha256
from deft_engine.types import Level, Sample
from tests.unit.engine.stage_folders import (
    StopAfter,
    error_of,
    make_samples,
    make_stage,
    outputs,
    points,
    result_of,
    run_stage,
    weights,
)

PAIRS = make_samples(6)
TRIPLES = make_samples(6, responses=3)
WHOLE_BATCH = {"batch_size": 8, "max_length": 128, "learning_rate": 1e-3}
VOCABULARY = 2048


def train_spec(method: Method, omega: float | GradShare | None = None, **fields: Any) -> TrainSpec:
    training = TrainingSpec.model_validate(WHOLE_BATCH | fields.pop("training", {}))
    reward = (
        None
        if omega is None
        else DistributionRewardSpec(
            omega=omega, scale=fields.pop("scale", "normalised"), on=fields.pop("on", "chosen")
        )
    )
    defaults: dict[str, Any] = {
        "levels": (),
        "rank_by": "annotation",
        "dtype": "auto",
        "lora": None,
        "template": "auto",
    }
    return TrainSpec(method=method, training=training, distribution_reward=reward, **(defaults | fields))


@pytest.fixture(scope="module")
def counts() -> np.ndarray[Any, np.dtype[np.int64]]:
    """Seeded token counts [2, vocab]: of good responses and, fewer, of bad ones."""
    random = np.random.default_rng(5)
    return np.stack([random.integers(0, 40, VOCABULARY), random.integers(0, 30, VOCABULARY)])


@pytest.fixture(scope="module")
def q_diff(counts: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The Q_diff of the counts."""
    difference: np.ndarray[Any, np.dtype[np.float64]] = (
        counts[0] / counts[0].sum() - counts[1] / counts[1].sum()
    )
    return difference


@pytest.fixture(scope="module")
def qdiff_file(tmp_path_factory: pytest.TempPathFactory, counts: Any, q_diff: Any) -> str:
    path = tmp_path_factory.mktemp("qdiff") / "qdiff.safetensors"
    totals = {"tokens_pos": str(counts[0].sum()), "tokens_neg": str(counts[1].sum())}
    sha256 = tokenizer_sha256(load_tokenizer("builtin:tiny"))
    q_pos, q_neg = (side / side.sum() for side in counts)
    tensors = {"q_pos": q_pos, "q_neg": q_neg, "q_diff": q_diff}
    save_file(tensors, path, {"tokenizer_sha256": sha256, **totals})
    return str(path)


def make_reference(folder: Path, samples: list[Sample]) -> str:
    """``reference.parquet`` by its own stage."""
    spec = ReferenceSpec(max_length=128, template="auto", dtype="auto", levels=())
    assert run_stage(make_stage(folder, "reference", spec, samples)) == EXIT_SUCCEEDED
    return str(folder / "out" / "reference.parquet")


def make_levels(path: Path, levels: Sequence[str]) -> str:
    columns = {
        "sample_id": [f"s{number}" for number in range(len(levels))],
        "subset": ["all"] * len(levels),
        "score": [0.0] * len(levels),
        "level": list(levels),
    }
    pq.write_table(pa.table(columns), path)
    return str(path)


def make_scores(folder: Path, samples: list[Sample], rewards: list[float]) -> str:
    write_scores(folder / "scores.parquet", read_index(folder / "samples.parquet"), rewards * len(samples))
    return str(folder / "scores.parquet")


def plain_hidden(model: PreTrainedModel, sample: Sample, index: int) -> tuple[Tensor, list[int]]:
    """The states that predict a response's tokens, ``[targets, hidden]``, by a forward pass of it alone."""
    tokenised = tokenise(sample, load_tokenizer("builtin:tiny"), "hh", 128, (index,))
    prompt, response = tokenised.prompt, tokenised.responses[0]
    states = model.model(torch.tensor([prompt + response])).last_hidden_state[0]
    return states[len(prompt) - 1 : -1], response


def plain_terms(
    model: PreTrainedModel, hidden: Tensor, response: list[int], q_diff: Any
) -> tuple[Tensor, Tensor]:
    """The log-probability of a response (eq 9) and its R_dis by the definition (eqs 16-17)."""
    log_probabilities = model.lm_head(hidden).log_softmax(-1)  # [targets, vocab]
    logp = log_probabilities[range(len(response)), response].sum()
    return logp, (log_probabilities @ torch.from_numpy(q_diff)).sum() / len(response)


def first_step(folder: Path) -> dict[str, float]:
    return {name: value for (name, step), value in points(folder).items() if step == 1}


def test_the_first_step_of_deft_dpo_is_eq_18(tmp_path: Path, qdiff_file: str, q_diff: Any) -> None:
    omega = 50.0
    spec = train_spec(DPO(beta=0.1, sft_weight=0.05), omega)
    reference = make_reference(tmp_path / "reference", PAIRS)
    folder = make_stage(tmp_path / "run", "train", spec, PAIRS, qdiff=qdiff_file, reference=reference)
    assert run_stage(folder) == EXIT_SUCCEEDED
    model = load_policy("builtin:tiny", "float64")
    with torch.no_grad():
        pairs = [plain_terms(model, *plain_hidden(model, s, 0), q_diff) for s in PAIRS]
    logp, r_dis = (torch.stack(values).mean().item() for values in zip(*pairs, strict=True))
    metrics = first_step(folder)
    assert metrics["rewards/margins"] == pytest.approx(0, abs=1e-4)  # the policy is the reference
    assert metrics["logps/chosen"] == pytest.approx(logp, abs=1e-3)
    assert metrics["deft/r_dis"] == pytest.approx(r_dis, rel=1e-4, abs=1e-7)
    assert metrics["loss"] == pytest.approx(math.log(2) - 0.05 * logp - omega * r_dis, rel=1e-4)
    result = result_of(folder)
    assert result["omega"] == omega
    assert result["r_dis_first"] == metrics["deft/r_dis"]
    assert result["final"]["deft/r_dis"] == result["r_dis_last"]


def test_omega_is_set_by_the_share_of_the_gradient(tmp_path: Path, qdiff_file: str, q_diff: Any) -> None:
    spec = train_spec(SFT(), GradShare(grad_share=0.03), training={"epochs": 3})
    folder = make_stage(tmp_path / "run", "train", spec, PAIRS, qdiff=qdiff_file)
    assert run_stage(folder) == EXIT_SUCCEEDED
    model = load_policy("builtin:tiny", "float64")
    base_squared = reward_squared = 0.0
    for sample in PAIRS:
        states, response = plain_hidden(model, sample, 0)
        hidden = states.detach().requires_grad_()
        logp, r_dis = plain_terms(model, hidden, response, q_diff)
        base_squared += torch.autograd.grad(logp, hidden, retain_graph=True)[0].square().sum().item()
        reward_squared += torch.autograd.grad(r_dis, hidden)[0].square().sum().item()
    result = result_of(folder)
    assert result["omega"] == pytest.approx(0.03 * math.sqrt(base_squared / reward_squared), rel=1e-3)
    assert first_step(folder)["deft/grad_share"] == pytest.approx(0.03, rel=1e-5)
    measured = [value for (name, _), value in points(folder).items() if name == "deft/grad_share"]
    assert result["grad_share"] == pytest.approx(sum(measured) / len(measured))
    assert result["warnings"] == []


@pytest.mark.parametrize(("omega", "verdict"), [(2.5e-6, "has no effect"), (1e6, "takes over")])
def test_an_omega_without_effect_or_too_large_is_told(
    tmp_path: Path, qdiff_file: str, omega: float, verdict: str
) -> None:
    folder = make_stage(tmp_path / "run", "train", train_spec(SFT(), omega), PAIRS, qdiff=qdiff_file)
    assert run_stage(folder) == EXIT_SUCCEEDED
    result = result_of(folder)
    (warning,) = result["warnings"]
    assert verdict in warning
    assert f"{result['grad_share']:.2g}" in warning
    assert "grad_share" in warning
    events = [event for _, event in read_events(folder / "events-1.jsonl", 0)]
    assert [e["message"] for e in events if e.get("level") == "warning"] == [warning]


def test_the_distribution_reward_can_be_on_all_responses(
    tmp_path: Path, qdiff_file: str, q_diff: Any
) -> None:
    spec = train_spec(SFT(), 1.0, on="all")
    folder = make_stage(tmp_path / "run", "train", spec, TRIPLES, qdiff=qdiff_file)
    assert run_stage(folder) == EXIT_SUCCEEDED
    model = load_policy("builtin:tiny", "float64")
    with torch.no_grad():
        rewards = [
            plain_terms(model, *plain_hidden(model, s, index), q_diff)[1].item()
            for s in TRIPLES
            for index in range(3)
        ]
    assert first_step(folder)["deft/r_dis"] == pytest.approx(sum(rewards) / len(rewards), rel=1e-4, abs=1e-7)


def test_raw_counts_can_stand_for_q_diff(tmp_path: Path, qdiff_file: str, counts: Any) -> None:
    spec = train_spec(SFT(), 1e-4, scale="counts")
    folder = make_stage(tmp_path / "run", "train", spec, PAIRS, qdiff=qdiff_file)
    assert run_stage(folder) == EXIT_SUCCEEDED
    model = load_policy("builtin:tiny", "float64")
    difference = (counts[0] - counts[1]).astype(np.float64)
    with torch.no_grad():
        terms = [plain_terms(model, *plain_hidden(model, sample, 0), difference) for sample in PAIRS]
    r_dis = sum(term.item() for _, term in terms) / len(terms)
    base = -sum(logp.item() for logp, _ in terms) / len(terms)
    assert first_step(folder)["deft/r_dis"] == pytest.approx(r_dis, rel=1e-5)
    assert first_step(folder)["loss"] == pytest.approx(base - 1e-4 * r_dis, rel=1e-5)


def test_a_share_is_held_by_correcting_omega(tmp_path: Path, qdiff_file: str) -> None:
    results = {}
    for hold in (False, True):
        training = {"epochs": 20, "learning_rate": 3e-3}
        spec = train_spec(SFT(), GradShare(grad_share=0.2, hold=hold), training=training)
        folder = make_stage(tmp_path / str(hold), "train", spec, PAIRS, qdiff=qdiff_file)
        assert run_stage(folder) == EXIT_SUCCEEDED
        series = [value for (name, _), value in points(folder).items() if name == "deft/grad_share"]
        results[hold] = abs(math.log(series[-1] / 0.2))
    assert results[True] < results[False] / 2


def test_training_raises_r_dis_where_omega_rules(tmp_path: Path, qdiff_file: str) -> None:
    spec = train_spec(SFT(), GradShare(grad_share=5), training={"epochs": 8})
    folder = make_stage(tmp_path / "run", "train", spec, PAIRS, qdiff=qdiff_file)
    assert run_stage(folder) == EXIT_SUCCEEDED
    assert result_of(folder)["r_dis_last"] > result_of(folder)["r_dis_first"]


def test_only_the_levels_asked_for_are_trained_on(tmp_path: Path) -> None:
    levels = make_levels(tmp_path / "levels.parquet", "ABACCA")
    spec = train_spec(SFT(), levels=(Level.A,))
    folder = make_stage(tmp_path / "a", "train", spec, PAIRS, levels=levels)
    assert run_stage(folder) == EXIT_SUCCEEDED
    alone = make_stage(tmp_path / "alone", "train", train_spec(SFT()), [PAIRS[0], PAIRS[2], PAIRS[5]])
    assert run_stage(alone) == EXIT_SUCCEEDED
    assert result_of(folder)["samples"] == 3
    assert weights(folder) == weights(alone)


def test_no_sample_of_the_levels_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    levels = make_levels(tmp_path / "levels.parquet", "BBBCCC")
    folder = make_stage(tmp_path / "run", "train", train_spec(SFT(), levels=(Level.A,)), PAIRS, levels=levels)
    assert run_stage(folder) == EXIT_FAILED
    error = error_of(folder)
    assert error["code"] == "invalid_data"
    assert "level A" in error["message"]
    assert "deft.a" in error["hint"]


def test_ranks_follow_the_rewards_and_the_reference_follows_the_ranks(tmp_path: Path) -> None:
    reference = make_reference(tmp_path / "reference", TRIPLES)
    spec = train_spec(DPO(), rank_by="auto")
    folder = make_stage(tmp_path / "run", "train", spec, TRIPLES, reference=reference)
    scores = make_scores(folder, TRIPLES, [0.2, 0.9, 0.1])  # the second is best, the third worst
    request = json.loads((folder / "stage.json").read_bytes())
    request["inputs"]["scores"] = scores
    (folder / "stage.json").write_text(json.dumps(request))
    assert run_stage(folder) == EXIT_SUCCEEDED
    model = load_policy("builtin:tiny", "float64")
    zero = np.zeros(VOCABULARY)
    with torch.no_grad():
        chosen, rejected = (
            sum(plain_terms(model, *plain_hidden(model, s, i), zero)[0].item() for s in TRIPLES) / 6
            for i in (1, 2)
        )
    metrics = first_step(folder)
    assert metrics["logps/chosen"] == pytest.approx(chosen, abs=1e-3)
    assert metrics["logps/rejected"] == pytest.approx(rejected, abs=1e-3)
    assert metrics["rewards/chosen"] == pytest.approx(0, abs=1e-4)  # each response met its own reference
    assert metrics["rewards/rejected"] == pytest.approx(0, abs=1e-4)


def test_a_reference_of_other_data_is_refused(tmp_path: Path) -> None:
    reference = make_reference(tmp_path / "reference", PAIRS[:5])
    folder = make_stage(tmp_path / "run", "train", train_spec(DPO()), PAIRS, reference=reference)
    assert run_stage(folder) == EXIT_FAILED
    error = error_of(folder)
    assert error["code"] == "invalid_data"
    assert "s5 (line 6)" in error["message"]


@pytest.mark.parametrize("lora", [None, LoraSpec(r=4, dropout=0.1)], ids=["full", "lora"])
def test_a_stopped_deft_run_resumes_bit_by_bit(
    tmp_path: Path, qdiff_file: str, lora: LoraSpec | None
) -> None:
    training = {"epochs": 3, "batch_size": 2, "gradient_accumulation": 2, "checkpoint_every": 2}
    spec = train_spec(DPO(), GradShare(grad_share=0.1), training=training, lora=lora)
    reference = make_reference(tmp_path / "reference", PAIRS)
    inputs = {"qdiff": qdiff_file, "reference": reference}
    whole = make_stage(tmp_path / "whole", "train", spec, PAIRS, **inputs)
    assert run_stage(whole) == EXIT_SUCCEEDED
    folder = make_stage(tmp_path / "stopped", "train", spec, PAIRS, **inputs)
    assert run_stage(folder, stop=StopAfter(2)) == EXIT_INTERRUPTED  # in the middle of the second epoch
    assert run_stage(folder, attempt=2) == EXIT_SUCCEEDED
    (_, first, *_), (_, second, *_) = (
        [e for _, e in read_events(p, 0)] for p in sorted(folder.glob("events-*"))
    )
    assert first["message"] == "training on 6 samples in 6 steps"
    assert second["message"] == "training on 6 samples in 6 steps, going on after step 3"
    assert outputs(folder) == outputs(whole)
    assert ("adapter/adapter_model.safetensors" in outputs(whole)) == (lora is not None)
    assert points(folder) == points(whole)
    assert result_of(folder)["steps"] == 6
    assert result_of(folder) | {"seconds": 0} == result_of(whole) | {"seconds": 0}


def test_the_adapter_on_the_base_model_is_the_merged_model(tmp_path: Path) -> None:
    spec = train_spec(SFT(), lora=LoraSpec(r=4), training={"epochs": 4, "learning_rate": 1e-2})
    folder = make_stage(tmp_path / "run", "train", spec, PAIRS)
    assert run_stage(folder) == EXIT_SUCCEEDED
    adapter = folder / "out" / "adapter"
    assert {path.name for path in adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    listed = json.loads((folder / "manifest.json").read_bytes())["outputs"]
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} < listed.keys()
    config = json.loads((adapter / "adapter_config.json").read_bytes())
    assert (config["peft_type"], config["r"], config["base_model_name_or_path"]) == ("LORA", 4, None)
    assert config["target_modules"] == sorted(config["target_modules"])
    ids = torch.tensor([load_tokenizer("builtin:tiny")("a green river")["input_ids"]])
    with torch.no_grad():
        base = load_policy("builtin:tiny", "float32")
        before = base(ids).logits
        from_adapter = PeftModel.from_pretrained(base, adapter).eval()(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(folder / "out" / "model")(ids).logits
    torch.testing.assert_close(from_adapter, merged)
    assert (merged - before).abs().max() > 0.01


def test_the_model_folder_stands_alone(tmp_path: Path) -> None:
    folder = make_stage(tmp_path / "run", "train", train_spec(SFT()), PAIRS)
    assert run_stage(folder) == EXIT_SUCCEEDED
    made = folder / "out" / "model"
    model, report = AutoModelForCausalLM.from_pretrained(made, output_loading_info=True)
    assert not report["missing_keys"]
    assert model.config.use_cache
    card = json.loads((made / "deft.json").read_bytes())
    assert (card["kind"], card["template"], card["recipe"]["method"]["name"]) == ("policy", "hh", "sft")
    again = make_stage(tmp_path / "again", "train", train_spec(SFT()), PAIRS, model=str(made))
    assert run_stage(again) == EXIT_SUCCEEDED  # it is a base model for the next job
    assert first_step(again)["loss"] < first_step(folder)["loss"]


def test_bfloat16_keeps_float32_weights(tmp_path: Path) -> None:
    spec = train_spec(SFT(), dtype="bfloat16", training={"learning_rate": 5e-7})
    folder = make_stage(tmp_path / "run", "train", spec, PAIRS)
    assert run_stage(folder) == EXIT_SUCCEEDED
    before = load_policy("builtin:tiny", "float32").state_dict()
    after = AutoModelForCausalLM.from_pretrained(folder / "out" / "model").state_dict()
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    moved = [(after[name] != before[name]).float().mean().item() for name in before]
    assert min(moved) > 0.5  # an update of 5e-7, which bfloat16 weights would have lost
