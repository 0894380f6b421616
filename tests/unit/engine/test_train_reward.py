"""The stage ``train_reward``: it learns a rule, loads as a classifier, and resumes bit by bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from deft_engine.losses import BradleyTerry
from deft_engine.models import new_reward_model
from deft_engine.run import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_SUCCEEDED
from deft_engine.spec_sections import LoraSpec, TrainingSpec
from deft_engine.stages import TrainRewardSpec
from deft_engine.types import Response
from tests.unit.engine.stage_folders import (
    StopAfter,
    error_of,
    make_samples,
    make_stage,
    outputs,
    points,
    result_of,
    run_stage,
    run_stage_process,
    weights,
)

SIGKILL = -9
SAMPLES = make_samples(21, responses=3)


def reward_spec(lora: LoraSpec | None = None, **training: object) -> TrainRewardSpec:
    defaults = {"learning_rate": 1e-3, "batch_size": 4, "epochs": 2, "checkpoint_every": 3, "max_length": 128}
    return TrainRewardSpec(
        method=BradleyTerry(),
        training=TrainingSpec.model_validate({**defaults, **training}),
        dtype="auto",
        lora=lora,
        template="auto",
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 + 6 optimiser steps that nothing disturbs."""
    folder = make_stage(
        tmp_path_factory.mktemp("runs") / "undisturbed", "train_reward", reward_spec(), SAMPLES
    )
    assert run_stage(folder) == EXIT_SUCCEEDED
    return folder


KILLS = {
    "after a step": (
        "import os, deft_engine.events as e\n"
        "report = e.EventWriter.progress\n"
        "def progress(self, step, total):\n"
        "    report(self, step, total)\n"
        "    if step == 8: os.kill(os.getpid(), 9)\n"
        "e.EventWriter.progress = progress\n"
    ),
    "inside a save": (
        "import os, deft_engine.checkpoints as c\n"
        "sync = c._sync_folder\n"
        "def half(folder):\n"
        "    if '-9' in folder.name: os.kill(os.getpid(), 9)\n"
        "    sync(folder)\n"
        "c._sync_folder = half\n"
    ),
}


@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_run_resumes_bit_by_bit(tmp_path: Path, undisturbed: Path, kill: str) -> None:
    folder = make_stage(tmp_path / "killed", "train_reward", reward_spec(), SAMPLES)
    assert run_stage_process(folder, KILLS[kill]).returncode == SIGKILL
    assert not (folder / "manifest.json").exists()
    assert run_stage(folder, attempt=2) == EXIT_SUCCEEDED
    assert outputs(folder) == outputs(undisturbed)
    assert points(folder) == points(undisturbed)
    unlike = {"seconds"}
    assert {k: v for k, v in result_of(folder).items() if k not in unlike} == {
        k: v for k, v in result_of(undisturbed).items() if k not in unlike
    }


def test_sigterm_stops_after_the_step_and_keeps_it(tmp_path: Path, undisturbed: Path) -> None:
    folder = make_stage(tmp_path / "stopped", "train_reward", reward_spec(), SAMPLES)
    sabotage = KILLS["after a step"].replace("8: os.kill(os.getpid(), 9)", "8: os.kill(os.getpid(), 15)")
    assert run_stage_process(folder, sabotage).returncode == EXIT_INTERRUPTED
    assert sorted(path.name for path in (folder / "work").glob("checkpoint-*")) == [
        "checkpoint-6",
        "checkpoint-8",
    ]
    assert run_stage(folder, attempt=2) == EXIT_SUCCEEDED
    assert weights(folder) == weights(undisturbed)
    assert points(folder) == points(undisturbed)


def test_figures_of_a_run(undisturbed: Path) -> None:
    result = result_of(undisturbed)
    assert (result["steps"], result["samples"], result["truncated"]) == (12, 42, 0)
    assert result["tokens"] > 0
    assert result["accuracy"] > 0.9  # the rule is plain: more "please" is better
    found = points(undisturbed)
    assert {name for name, _ in found} == {
        "loss", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins",
        "grad_norm", "learning_rate", "truncated",
    }  # fmt: skip
    assert [step for name, step in found if name == "loss"] == list(range(1, 13))
    assert found["loss", 12] < found["loss", 1]
    assert found["learning_rate", 1] == 1e-3
    assert found["learning_rate", 12] == pytest.approx(1e-3 / 12)


def test_the_model_loads_as_a_classifier_and_prefers_the_better(undisturbed: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(undisturbed / "out" / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(undisturbed / "out" / "model")
    assert model.config.num_labels == 1
    assert json.loads((undisturbed / "out" / "model" / "deft.json").read_bytes())["kind"] == "reward_model"
    right = 0
    for sample in make_samples(60)[30:]:  # not seen in training
        rewards = []
        for response in sample.responses:
            text = f"\n\nHuman: {sample.prompt[0].content}\n\nAssistant: {response.text}"
            ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
            with torch.no_grad():
                rewards.append(model(torch.tensor([ids])).logits.item())
        right += rewards[0] > rewards[1]
    assert right >= 27


def test_lora_trains_resumes_and_is_merged(tmp_path: Path) -> None:
    spec = reward_spec(LoraSpec(r=4, dropout=0.2), epochs=1)
    whole = make_stage(tmp_path / "whole", "train_reward", spec, SAMPLES)
    assert run_stage(whole) == EXIT_SUCCEEDED
    folder = make_stage(tmp_path / "stopped", "train_reward", spec, SAMPLES)
    assert run_stage(folder, stop=StopAfter(3)) == EXIT_INTERRUPTED
    assert run_stage(folder, attempt=2) == EXIT_SUCCEEDED
    assert outputs(folder) == outputs(whole)
    assert points(folder) == points(whole)
    model, report = AutoModelForSequenceClassification.from_pretrained(
        folder / "out" / "model", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not any("lora" in name for name, _ in model.named_parameters())
    ids = torch.tensor([[1, 300, 301, 2]])
    from_adapter = PeftModel.from_pretrained(
        new_reward_model("builtin:tiny", "float32"), folder / "out" / "adapter"
    )
    with torch.no_grad():
        torch.testing.assert_close(from_adapter(ids).logits, model.eval()(ids).logits)


def test_a_checkpoint_of_another_spec_is_refused(tmp_path: Path) -> None:
    folder = make_stage(tmp_path / "run", "train_reward", reward_spec(), SAMPLES)
    assert run_stage(folder, stop=StopAfter(1)) == EXIT_INTERRUPTED
    request = json.loads((folder / "stage.json").read_bytes())
    request["spec"]["training"]["seed"] = 7
    (folder / "stage.json").write_text(json.dumps(request))
    assert run_stage(folder, attempt=2) == EXIT_FAILED
    error = error_of(folder, attempt=2)
    assert error["code"] == "checkpoint_mismatch"
    assert error["hint"]


def test_fewer_samples_than_a_batch(tmp_path: Path) -> None:
    folder = make_stage(tmp_path / "run", "train_reward", reward_spec(batch_size=8, epochs=1), SAMPLES[:3])
    assert run_stage(folder) == EXIT_SUCCEEDED
    assert (result_of(folder)["steps"], result_of(folder)["samples"]) == (1, 3)


def test_an_empty_dataset_says_so(tmp_path: Path) -> None:
    folder = make_stage(tmp_path / "run", "train_reward", reward_spec(), [])
    assert run_stage(folder) == EXIT_FAILED
    assert error_of(folder)["code"] == "invalid_data"


def test_a_margin_is_of_the_annotated_rewards(tmp_path: Path) -> None:
    rewards = (3.0, 1.0, 0.5)
    samples = [
        replace(s, responses=tuple(Response(r.text, x) for r, x in zip(s.responses, rewards, strict=True)))
        for s in SAMPLES[:4]
    ]
    without = make_stage(tmp_path / "without", "train_reward", reward_spec(epochs=1), samples)
    spec = reward_spec(epochs=1).model_copy(update={"method": BradleyTerry(margin=100.0)})
    folder = make_stage(tmp_path / "margin", "train_reward", spec, samples)
    assert run_stage(without) == run_stage(folder) == EXIT_SUCCEEDED
    # so far above the rewards of a new head, each pair's loss is its margin: 200, 250 and 50
    margins = points(without)["rewards/margins", 1]
    assert points(folder)["loss", 1] == pytest.approx(500 / 3 - margins * 2 / 3, rel=1e-3)


def test_a_margin_without_rewards_is_told(tmp_path: Path) -> None:
    spec = reward_spec().model_copy(update={"method": BradleyTerry(margin=1.0)})
    folder = make_stage(tmp_path / "run", "train_reward", spec, SAMPLES)
    assert run_stage(folder) == EXIT_FAILED
    error = error_of(folder)
    assert error["code"] == "missing_score"
    assert "line 1: response 1 of sample s0" in error["message"]


def test_exhausted_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deft_engine.train_reward.new_reward_model", lambda *_: torch.empty(2**50))
    folder = make_stage(tmp_path / "run", "train_reward", reward_spec(), SAMPLES[:3])
    assert run_stage(folder) == EXIT_FAILED
    error = error_of(folder)
    assert error["code"] == "out_of_memory"
    assert "batch_size" in error["hint"]
