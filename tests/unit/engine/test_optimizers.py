"""``training.optimizer``: 8-bit AdamW trains, keeps bytes, resumes exactly, and is asked for by name."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from deft_engine.losses import SFT
from deft_engine.run import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_SUCCEEDED
from deft_engine.spec_sections import TrainingSpec
from deft_engine.stages import TrainSpec
from tests.unit.engine.stage_folders import (
    StopAfter,
    error_of,
    make_samples,
    make_stage,
    outputs,
    points,
    run_stage,
)

SAMPLES = make_samples(4)
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None,
    reason="needs the extra: pip install 'deft[bitsandbytes]'",
)


def spec(optimizer: str) -> TrainSpec:
    training = TrainingSpec.model_validate(
        {"optimizer": optimizer, "epochs": 3, "batch_size": 4, "max_length": 64, "learning_rate": 1e-3}
    )
    return TrainSpec(
        method=SFT(), training=training, distribution_reward=None, levels=(), rank_by="annotation",
        dtype="auto", lora=None, template="auto",
    )  # fmt: skip


@needs_bitsandbytes
def test_8_bit_adamw_keeps_bytes_learns_and_resumes_exactly(tmp_path: Path) -> None:
    whole = make_stage(tmp_path / "whole", "train", spec("adamw_8bit"), SAMPLES)
    assert run_stage(whole) == EXIT_SUCCEEDED
    assert points(whole)["loss", 3] < points(whole)["loss", 1]
    folder = make_stage(tmp_path / "stopped", "train", spec("adamw_8bit"), SAMPLES)
    assert run_stage(folder, stop=StopAfter(1)) == EXIT_INTERRUPTED
    (checkpoint,) = (folder / "work").glob("checkpoint-*")
    state = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"]
    moments = [kept.get("__bnb_optimizer_quant_state__", kept)["state1"] for kept in state.values()]
    bytes_each = [moment.element_size() for moment in moments]
    assert bytes_each.count(1) == 4 * 7  # the matrices of four layers; embeddings and norms are in 32 bits
    assert set(bytes_each) == {1, 4}
    assert run_stage(folder, attempt=2) == EXIT_SUCCEEDED
    assert outputs(folder) == outputs(whole)
    assert points(folder) == points(whole)


def test_without_its_package_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    without = {"bitsandbytes": None}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: without.get(name, found(name, *a)))
    folder = make_stage(tmp_path / "run", "train", spec("adamw_8bit"), SAMPLES)
    assert run_stage(folder) == EXIT_FAILED
    error = error_of(folder)
    assert error["code"] == "invalid_spec"
    assert "adamw_8bit needs bitsandbytes" in error["message"]
    assert "pip install 'deft[bitsandbytes]'" in error["hint"]
    assert not error["retryable"]
