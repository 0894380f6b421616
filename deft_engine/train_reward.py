"""The stage ``train_reward``: a reward model by Bradley-Terry (eq 1) on ranked responses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from transformers import set_seed

from deft_engine.data.samples import read_samples
from deft_engine.errors import DataError
from deft_engine.hidden_states import model_layout
from deft_engine.logps import ranked_rewards
from deft_engine.lora import add_lora
from deft_engine.losses import BradleyTerry
from deft_engine.losses.output import LossOutput
from deft_engine.models import core_model, device, new_reward_model
from deft_engine.precision import autocast
from deft_engine.run import StageContext
from deft_engine.stages import Dtype, TrainRewardSpec
from deft_engine.templates import resolve_template
from deft_engine.tokenizer import load_tokenizer
from deft_engine.trained_model import write_trained_model
from deft_engine.training import Training
from deft_engine.training_data import (
    RankedSample,
    TrainingBatch,
    TrainingData,
    known_rewards,
)
from deft_engine.types import Sample

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class RewardObjective:
    """The loss on the rewards of a batch; it keeps nothing between steps."""

    method: BradleyTerry
    dtype: Dtype

    def __call__(self, model: PreTrainedModel, batch: TrainingBatch, step: int) -> LossOutput:
        """Eq 1 over all pairs of each sample."""
        with autocast(self.dtype):
            rewards = ranked_rewards(model, batch.ranked)
        return self.method(rewards, batch.ranked.mask, batch.rewards)

    def prepare(self, model: PreTrainedModel) -> None:
        """Try the model's layout while it is whole."""
        model_layout(core_model(model))

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}


def run(context: StageContext[TrainRewardSpec]) -> dict[str, Any]:
    """Train, and write the reward model into ``model/``, with LoRA also its adapter alone into ``adapter/``.

    The result's ``accuracy`` is the share of pairs ranked rightly over the last epoch, each batch before its
    update: with one epoch no pair was seen before. ``longer_wins`` is the share of the same pairs whose
    preferred response is the longer one.

    Raises:
        DataError: the dataset is empty, or lacks a reward that the margin needs.
        ModelError: the model cannot be loaded.
        TrainingDiverged, CheckpointMismatch, Interrupted: see ``Training.run``.
    """
    spec, uri = context.spec, context.inputs["model"]
    set_seed(spec.training.seed)  # LoRA's first weights
    tokenizer = load_tokenizer(uri)
    template = resolve_template(spec.template, uri, tokenizer)
    samples = [_ranked(sample, spec.method) for sample in read_samples(context.path("samples"))]
    if not samples:
        raise DataError("the dataset has no sample to train on", hint="look at its ledger of rejected rows")
    data = TrainingData(samples, tokenizer, template, spec.training.max_length)
    model = new_reward_model(uri, "float32")  # see deft_engine.precision
    if spec.lora is not None:
        model = add_lora(model, spec.lora)
    model.to(device())

    training = Training.of(context, model, data, RewardObjective(spec.method, spec.dtype))
    context.stop.check()
    training.run()

    recorder = training.recorder
    layout = model_layout(core_model(model))
    accuracy, longer = recorder.last_epoch["rewards/accuracies"], longer_wins(samples)
    result = recorder.result() | {
        "accuracy": accuracy,
        "longer_wins": longer,
        "layout": layout,
        "warnings": [] if accuracy > longer else [_no_better(accuracy, longer)],
    }
    write_trained_model(context, model, tokenizer, "reward_model", template, samples, result)
    return result


def longer_wins(samples: Sequence[RankedSample]) -> float:
    """Share of pairs whose preferred response is the longer one (a tie is none), a sample's pairs as one."""
    shares = []
    for ranked in samples:
        pairs = list(combinations((len(response.text) for response in ranked.sample.responses), 2))
        shares.append(sum(better > worse for better, worse in pairs) / len(pairs))
    return math.fsum(shares) / len(shares)


def _no_better(accuracy: float, longer: float) -> str:
    return (
        f"the reward model ranked {100 * accuracy:.1f}% of pairs rightly over its last epoch of training, "
        f'each batch before its update, and the rule "longer wins" {100 * longer:.1f}%; evaluate it on '
        "held-out pairs before its figures are believed"
    )


def _ranked(sample: Sample, method: BradleyTerry) -> RankedSample:
    """A sample in the annotated order, with the annotated rewards where the method needs them."""
    rewards = None
    if method.needs_rewards:
        rewards = tuple(known_rewards(sample, [response.reward for response in sample.responses]))
    return RankedSample(sample, tuple(range(len(sample.responses))), rewards=rewards)
