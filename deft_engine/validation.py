"""Which epoch of a training is kept: the one whose answers the reward model likes best (section 4.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from deft_engine.data.samples import StoredSamples
from deft_engine.data.selection import Selected, choose
from deft_engine.durable import fsync
from deft_engine.errors import TrainingDiverged
from deft_engine.evaluators.reward import in_percent
from deft_engine.generation import Decoder
from deft_engine.measures import MAX_LENGTH
from deft_engine.models import as_it_computes, core_model, trainable
from deft_engine.packed_attention import attending_by
from deft_engine.precision import autocast
from deft_engine.response_scoring import values_of
from deft_engine.reward_scoring import RewardScorer
from deft_engine.stages import Dtype, EpochsSpec, TrainSpec
from deft_engine.templates import FixedTemplate
from deft_engine.types import Response, Sample

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from deft_engine.run import StageContext


@dataclass(frozen=True, slots=True)
class Best:
    """The model that is kept: after which optimiser step, and its reward in percent."""

    step: int
    reward: float

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> Best:
        """From what ``metadata`` gave."""
        return cls(int(metadata["step"]), float(metadata["reward"]))

    def metadata(self) -> dict[str, str]:
        """For a safetensors file; a float's repr loses nothing."""
        return {"step": str(self.step), "reward": repr(self.reward)}


class Validation:
    """Answers of the model under training to the same prompts each time, and the best model so far.

    What is kept lies in the stage's ``work`` folder. A run that goes on from an older checkpoint comes to the
    same figures again, so an epoch that is repeated changes nothing.
    """

    def __init__(
        self,
        spec: EpochsSpec,
        samples: list[Sample],
        scorer: RewardScorer,
        work: Path,
        tokenizer: PreTrainedTokenizerBase,
        template: FixedTemplate,
        dtype: Dtype,
    ) -> None:
        self._spec = spec
        self._samples = samples
        self._scorer = scorer
        self._kept = work / "best.safetensors"
        self._tokenizer, self._template, self._dtype = tokenizer, template, dtype

    @classmethod
    def of(
        cls,
        context: StageContext[TrainSpec],
        tokenizer: PreTrainedTokenizerBase,
        template: FixedTemplate,
    ) -> Validation | None:
        """The validation that a stage asks for.

        Raises:
            ModelError: the reward model cannot be used.
        """
        spec = context.spec.validation
        if spec is None:
            return None
        stored = StoredSamples(context.path("validation_samples"))
        chosen = list(Selected(stored, choose(len(stored), spec.samples, spec.seed)))
        scorer = RewardScorer.load(context.inputs["validation_reward_model"], MAX_LENGTH, "auto")
        return cls(spec, chosen, scorer, context.work, tokenizer, template, context.spec.dtype)

    def validate(
        self, model: PreTrainedModel, step: int, attention: str, interrupt: Callable[[], None]
    ) -> float:
        """The mean reward of the model's answers after optimiser step ``step``; the best model is kept.

        Args:
            attention: How the model attends outside of training.
            interrupt: Called often; it may raise to give up.

        Raises:
            TrainingDiverged: the rewards are not finite.
        """
        reward = self._reward(model, attention, interrupt)
        if not math.isfinite(reward):
            raise TrainingDiverged(
                f"step {step}: the validation's reward is {reward}",
                hint="lower training.learning_rate, or look at the reward model",
            )
        best = self.best()
        if best is None or reward > best.reward:
            self._keep(model, Best(step, reward))
        return reward

    def best(self) -> Best | None:
        """What is kept; None before the first validation."""
        if not self._kept.exists():
            return None
        with safe_open(self._kept, framework="pt") as file:
            return Best.of(file.metadata())

    def restore(self, model: PreTrainedModel) -> None:
        """Give the model the weights that are kept."""
        saved = load_file(self._kept)
        with torch.no_grad():
            for name, parameter in trainable(model).items():
                parameter.copy_(saved[name])

    def _reward(self, model: PreTrainedModel, attention: str, interrupt: Callable[[], None]) -> float:
        core, spec = core_model(model), self._spec
        with as_it_computes(core), attending_by(core, attention), autocast(self._dtype):
            decoder = Decoder(
                *(core, self._tokenizer, self._template),
                *(spec.max_prompt_length, spec.max_new_tokens, spec.batch_size),
            )
            prompts = [decoder.encode(sample) for sample in self._samples]
            answers = {index: answer.text for index, answer in decoder.answers(prompts, interrupt)}
        answered = [
            replace(sample, responses=(Response(answers[index]),))
            for index, sample in enumerate(self._samples)
        ]
        parts = [part for sample in answered for part in self._scorer.tokenising.parts(sample, (0,))]
        values = values_of(parts, self._scorer.rewards, lambda _: interrupt())
        return math.fsum(in_percent(value) for (value,) in values) / len(values)

    def _keep(self, model: PreTrainedModel, best: Best) -> None:
        weights = {name: p.detach().contiguous() for name, p in trainable(model).items()}
        partial = self._kept.with_suffix(".partial")
        save_file(weights, partial, metadata=best.metadata())
        fsync(partial)
        partial.rename(self._kept)
