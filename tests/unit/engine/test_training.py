"""The loop: accumulation, data order, figures and divergence, on the built-in model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import AttentionInterface, PreTrainedModel

from deft_engine import packed_attention
from deft_engine.checkpoints import Checkpoints, RunIdentity
from deft_engine.data.tokenise import tokenise
from deft_engine.errors import TrainingDiverged
from deft_engine.events import EventWriter, read_events
from deft_engine.hidden_states import model_layout
from deft_engine.lora import add_lora
from deft_engine.losses import SFT
from deft_engine.losses.output import LossOutput
from deft_engine.models import core_model, load_policy
from deft_engine.run import StopRequest
from deft_engine.spec_sections import LoraSpec, TrainingSpec
from deft_engine.tokenizer import load_tokenizer
from deft_engine.train_policy import PolicyObjective
from deft_engine.training import Objective, Training
from deft_engine.training_data import BatchOrder, RankedSample, TrainingBatch, TrainingData
from deft_engine.training_metrics import Recorder
from tests.unit.engine.stage_folders import make_samples

SAMPLES = make_samples(7)
SFT_OBJECTIVE = PolicyObjective(SFT(), "float32", None)


def training_data() -> TrainingData:
    ranked = [RankedSample(sample, (0, 1)) for sample in SAMPLES]
    return TrainingData(ranked, load_tokenizer("builtin:tiny"), "hh", 128)


def train(
    folder: Path, spec: TrainingSpec, objective: Objective, model: PreTrainedModel
) -> list[dict[str, Any]]:
    """Train in ``folder``; returns the metrics of each step."""
    data = training_data()
    events = folder / "events.jsonl"
    with EventWriter(events) as writer:
        recorder = Recorder(writer, BatchOrder(len(data), spec).total_steps)
        checkpoints = Checkpoints(folder, RunIdentity.of(spec))
        Training(model, data, spec, objective, recorder, checkpoints, None, StopRequest()).run()
    return [event["values"] for _, event in read_events(events, 0) if event["type"] == "metrics"]


@contextmanager
def gradients() -> Iterator[list[Tensor]]:
    """The gradient (all parameters in one vector) at each optimiser step."""
    seen: list[Tensor] = []

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        seen.append(torch.cat([p.grad.flatten() for p in parameters]).clone())

    handle = register_optimizer_step_pre_hook(look)
    try:
        yield seen
    finally:
        handle.remove()


def plain_sft_loss(model: PreTrainedModel, index: int) -> Tensor:
    """Minus the log-probability of y_1 (eq 9) by a plain forward pass of one sequence."""
    tokenised = tokenise(SAMPLES[index], load_tokenizer("builtin:tiny"), "hh", 128, (0,))
    prompt, response = tokenised.prompt, tokenised.responses[0]
    logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return -logits.log_softmax(-1)[range(len(response)), response].sum()


@pytest.mark.parametrize(
    ("batch_size", "accumulation"), [(7, 1), (2, 4), (3, 3)], ids=["whole", "2+2+2+1", "3+3+1"]
)
def test_accumulation_is_the_mean_over_samples(tmp_path: Path, batch_size: int, accumulation: int) -> None:
    model = load_policy("builtin:tiny", "float64")
    losses = [plain_sft_loss(model, index) for index in range(len(SAMPLES))]
    expected = torch.stack(losses).mean()
    expected.backward()
    expected_gradient = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    spec = TrainingSpec(
        batch_size=batch_size, gradient_accumulation=accumulation, max_grad_norm=1e9, max_length=128
    )
    with gradients() as seen:
        (metrics,) = train(tmp_path, spec, SFT_OBJECTIVE, model)
    norm = torch.cat([g.flatten() for g in expected_gradient.values()]).norm()
    assert metrics["loss"] == pytest.approx(expected.item(), rel=1e-12)
    assert metrics["logps/chosen"] == pytest.approx(-expected.item(), rel=1e-12)
    assert metrics["grad_norm"] == pytest.approx(norm.item(), rel=1e-9)
    assert len(seen) == 1
    assert seen[0].norm().item() == pytest.approx(norm.item(), rel=1e-9)
    assert metrics["learning_rate"] == spec.learning_rate  # linear decay begins after the first step


def test_accumulated_gradients_are_the_large_batch_s(tmp_path: Path) -> None:
    found = []
    for batch_size, accumulation in ((7, 1), (2, 4)):
        folder = tmp_path / str(batch_size)
        folder.mkdir()
        spec = TrainingSpec(
            batch_size=batch_size,
            gradient_accumulation=accumulation,
            epochs=3,
            learning_rate=1e-3,
            max_length=128,
        )
        with gradients() as seen:
            train(folder, spec, SFT_OBJECTIVE, load_policy("builtin:tiny", "float64"))
        found.append(seen)
    assert len(found[0]) == len(found[1]) == 3
    for whole, accumulated in zip(*found, strict=True):
        torch.testing.assert_close(whole, accumulated, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("lora", [None, LoraSpec(r=4, dropout=0.1)], ids=["full", "lora"])
def test_gradient_checkpointing_runs_each_layer_again_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: LoraSpec | None
) -> None:
    attended: list[int] = []
    forward = packed_attention.packed_attention_forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        attended.append(1)
        return forward(*args, **kwargs)

    AttentionInterface.register(packed_attention.IMPLEMENTATION, counted)
    monkeypatch.setitem(AttentionInterface._global_mapping, packed_attention.IMPLEMENTATION, counted)
    weights, calls = [], []
    for again in (False, True):
        spec = TrainingSpec(
            batch_size=4, epochs=2, learning_rate=1e-3, max_length=128, gradient_checkpointing=again
        )
        model = load_policy("builtin:tiny", "float32")
        torch.manual_seed(3)
        if lora is not None:
            model = add_lora(model, lora)
        model_layout(core_model(model))  # the probe attends, too
        attended.clear()
        (tmp_path / str(again)).mkdir()
        train(tmp_path / str(again), spec, SFT_OBJECTIVE, model)
        calls.append(len(attended))
        weights.append({name: p.detach() for name, p in model.named_parameters()})
        assert core_model(model).config._attn_implementation != packed_attention.IMPLEMENTATION
    assert calls[1] == 2 * calls[0] > 0
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-6)


def test_an_epoch_is_a_permutation_of_its_own() -> None:
    order = BatchOrder(10, TrainingSpec(batch_size=4, gradient_accumulation=2, epochs=3))
    epochs = []
    for order.epoch in range(3):
        batches = list(order)
        assert [len(batch) for batch in batches] == [4, 4, 2]
        epochs.append([index for batch in batches for index in batch])
        assert sorted(epochs[-1]) == list(range(10))
    assert epochs[0] != epochs[1] != epochs[2]
    order.epoch = 1
    assert [index for batch in order for index in batch] == epochs[1]
    assert [i for b in BatchOrder(10, TrainingSpec(batch_size=4, seed=7)) for i in b] != epochs[0]
    assert (order.steps_per_epoch, order.total_steps) == (2, 6)
    assert BatchOrder(10, TrainingSpec(batch_size=4, max_steps=5)).total_steps == 5


@dataclass
class Watched:
    """SFT that notes which samples each step sees and changes the loss by ``spoil``."""

    spoil: Callable[[LossOutput, int], LossOutput] = lambda output, step: output
    seen: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)

    def prepare(self, model: PreTrainedModel) -> None:
        pass

    def __call__(self, model: PreTrainedModel, batch: TrainingBatch, step: int) -> LossOutput:
        self.seen.append((step, batch.ranked.sample_ids))
        return self.spoil(SFT_OBJECTIVE(model, batch, step), step)

    def state(self) -> dict[str, Any]:
        return {}


def test_every_epoch_sees_every_sample_in_an_order_of_its_own(tmp_path: Path) -> None:
    spec = TrainingSpec(batch_size=2, gradient_accumulation=2, epochs=2, max_length=128)
    objective = Watched()
    train(tmp_path, spec, objective, load_policy("builtin:tiny", "float32"))
    assert [(step, len(ids)) for step, ids in objective.seen] == [
        (1, 2), (1, 2), (2, 2), (2, 1), (3, 2), (3, 2), (4, 2), (4, 1),
    ]  # fmt: skip
    epochs = [
        [name for step, ids in objective.seen for name in ids if (step > 2) == later]
        for later in (False, True)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(sample.id for sample in SAMPLES)
    assert epochs[0] != epochs[1]


def test_max_steps_goes_beyond_the_epochs(tmp_path: Path) -> None:
    spec = TrainingSpec(batch_size=4, max_steps=5, max_length=128)  # two steps an epoch
    assert len(train(tmp_path, spec, Watched(), load_policy("builtin:tiny", "float32"))) == 5


def nan_loss(output: LossOutput, step: int) -> LossOutput:
    return output._replace(loss=output.loss * float("nan")) if step == 2 else output


def nan_gradient(output: LossOutput, step: int) -> LossOutput:
    """A finite loss whose gradient is not: the root of zero."""
    return output._replace(loss=output.loss + (output.loss * 0).sqrt()) if step == 2 else output


@pytest.mark.parametrize(("spoil", "what"), [(nan_loss, "loss"), (nan_gradient, "gradient")])
def test_nan_ends_the_run_before_it_reaches_the_weights(
    tmp_path: Path, spoil: Callable[[LossOutput, int], LossOutput], what: str
) -> None:
    model = load_policy("builtin:tiny", "float32")
    spec = TrainingSpec(batch_size=2, epochs=1, max_length=128, learning_rate=1e-3)
    with pytest.raises(TrainingDiverged, match=f"step 2: the {what}.* is NaN or infinite") as raised:
        train(tmp_path, spec, Watched(spoil), model)
    assert raised.value.hint
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_the_configuration_keeps_its_cache(tmp_path: Path) -> None:
    model = load_policy("builtin:tiny", "float32")
    before = model.config.use_cache
    train(tmp_path, TrainingSpec(max_steps=1, max_length=128), Watched(), model)
    assert model.config.use_cache == before
