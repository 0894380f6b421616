"""Validation keeps the epoch whose answers r_train likes best, wherever a run was stopped (section 4.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from deft_engine.losses import SFT
from deft_engine.models import load_policy, load_reward_model, new_reward_model, save_model
from deft_engine.run import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_SUCCEEDED
from deft_engine.spec_sections import LoraSpec, TrainingSpec
from deft_engine.stages import EpochsSpec, TrainSpec
from deft_engine.tokenizer import load_tokenizer
from tests.unit.engine.stage_folders import (
    StopAtCheck,
    error_of,
    make_samples,
    make_stage,
    points,
    result_of,
    run_stage,
    weights,
)

SAMPLES = make_samples(8)
EPOCHS = EpochsSpec(samples=5, seed=1, max_new_tokens=8, max_prompt_length=64, batch_size=4)


def spec(epochs: int, validation: EpochsSpec | None = EPOCHS, **fields: Any) -> TrainSpec:
    """Supervised steps so large that answers change from epoch to epoch."""
    training = TrainingSpec(
        epochs=epochs, batch_size=4, max_length=64, learning_rate=3e-3, lr_scheduler="constant",
        checkpoint_every=3, **fields.pop("training", {}),
    )  # fmt: skip
    defaults: dict[str, Any] = {"dtype": "auto", "lora": None, "template": "auto"}
    return TrainSpec(
        method=SFT(), training=training, distribution_reward=None, levels=(), rank_by="annotation",
        validation=validation, **(defaults | fields),
    )  # fmt: skip


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A reward model and its opposite: what one likes best the other likes least."""
    folder = tmp_path_factory.mktemp("judges")
    model = new_reward_model("builtin:tiny", "float32")
    with torch.no_grad():
        model.score.weight.mul_(3)
        for name in ("one", "opposite"):
            save_model(model, load_tokenizer("builtin:tiny"), folder / name, "reward_model", "hh")
            model.score.weight.neg_()
    return {name: str(folder / name) for name in ("one", "opposite")}


def stage(folder: Path, judge: str, asked: TrainSpec) -> Path:
    made = make_stage(folder, "train", asked, SAMPLES, validation_reward_model=judge)
    request = (made / "stage.json").read_text()
    samples = f'"samples": "{made / "samples.parquet"}"'
    assert samples in request
    path = samples.replace('"samples"', '"validation_samples"')
    (made / "stage.json").write_text(request.replace(samples, f"{samples}, {path}"))
    return made


def rewards(folder: Path) -> dict[int, float]:
    """Optimiser step -> the validation's reward."""
    return {step: value for (name, step), value in points(folder).items() if name == "validation/reward"}


@pytest.mark.parametrize("judge", ["one", "opposite"])
@pytest.mark.parametrize("lora", [None, LoraSpec(r=2)])
def test_the_best_epoch_is_kept(
    judge: str, lora: LoraSpec | None, judges: dict[str, str], tmp_path: Path
) -> None:
    whole = stage(tmp_path / "whole", judges[judge], spec(3, lora=lora))
    assert run_stage(whole) == EXIT_SUCCEEDED
    found = rewards(whole)
    assert sorted(found) == [2, 4, 6]  # 8 samples by 4
    assert len(set(found.values())) > 1
    best = max(found, key=lambda step: found[step])
    assert result_of(whole)["validation"] == {"step": best, "reward": found[best]}
    until_then = stage(
        tmp_path / "cut", judges[judge], spec(best // 2, None, lora=lora)
    )  # a constant rate: an epoch is the same, whatever follows
    assert run_stage(until_then) == EXIT_SUCCEEDED
    assert weights(whole) == weights(until_then)


def test_opposite_judges_keep_different_epochs(judges: dict[str, str], tmp_path: Path) -> None:
    kept = set()
    for name, judge in judges.items():
        folder = stage(tmp_path / name, judge, spec(3))
        assert run_stage(folder) == EXIT_SUCCEEDED
        kept.add(result_of(folder)["validation"]["step"])
    assert len(kept) == 2


def test_the_reward_is_that_of_the_model_s_own_answers(judges: dict[str, str], tmp_path: Path) -> None:
    """Against transformers' generate and the reward model as it is called by itself."""
    folder = stage(tmp_path / "stage", judges["one"], spec(1, EPOCHS.model_copy(update={"samples": 8})))
    assert run_stage(folder) == EXIT_SUCCEEDED
    policy = load_policy(str(folder / "out" / "model"), "float32")
    judge = load_reward_model(judges["one"], "float32")
    tokenizer = load_tokenizer("builtin:tiny")
    percent = []
    for sample in SAMPLES:
        prompt = f"\n\nHuman: {sample.prompt[0].content}\n\nAssistant:"
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            new = policy.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
            text = tokenizer.decode(new, skip_special_tokens=True).partition("\n\nHuman:")[0]
            text = text.partition("\n\nAssistant:")[0].removeprefix(" ")
            whole = tokenizer(f"{prompt} {text}", return_tensors="pt").input_ids
            ended = torch.cat([whole, torch.tensor([[tokenizer.eos_token_id]])], dim=1)
            raw = judge.score(judge.model(ended).last_hidden_state[0, -1])
        percent.append(100 * float(torch.sigmoid(raw)))
    assert rewards(folder)[2] == pytest.approx(sum(percent) / len(percent), abs=1e-3)


@pytest.mark.parametrize("checks", [4, 9, 14, 19, 24])
def test_a_run_that_is_stopped_anywhere_ends_the_same(
    checks: int, judges: dict[str, str], tmp_path: Path
) -> None:
    undisturbed = stage(tmp_path / "undisturbed", judges["opposite"], spec(3))
    assert run_stage(undisturbed) == EXIT_SUCCEEDED
    stopped = stage(tmp_path / "stopped", judges["opposite"], spec(3))
    assert run_stage(stopped, 1, StopAtCheck(checks)) == EXIT_INTERRUPTED
    assert run_stage(stopped, 2) == EXIT_SUCCEEDED
    assert weights(stopped) == weights(undisturbed)
    assert rewards(stopped) == rewards(undisturbed)
    assert result_of(stopped)["validation"] == result_of(undisturbed)["validation"]


def test_checkpointed_layers_change_nothing(judges: dict[str, str], tmp_path: Path) -> None:
    plain = stage(tmp_path / "plain", judges["one"], spec(2))
    again = stage(tmp_path / "again", judges["one"], spec(2, training={"gradient_checkpointing": True}))
    for folder in (plain, again):
        assert run_stage(folder) == EXIT_SUCCEEDED
    assert rewards(again) == pytest.approx(rewards(plain), rel=1e-4)


def test_rewards_that_are_no_numbers_end_the_run(tmp_path: Path) -> None:
    model = new_reward_model("builtin:tiny", "float32")
    with torch.no_grad():
        model.score.weight.fill_(float("nan"))
    save_model(model, load_tokenizer("builtin:tiny"), tmp_path / "judge", "reward_model", "hh")
    folder = stage(tmp_path / "stage", str(tmp_path / "judge"), spec(1))
    assert run_stage(folder) == EXIT_FAILED
    assert error_of(folder)["code"] == "training_diverged"
    assert "step 2" in error_of(folder)["message"]
