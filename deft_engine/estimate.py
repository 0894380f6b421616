"""What a plan will cost: samples, steps, tokens, memory and time of each stage, without torch.

Tokens are counted as characters / 4; work as 2 FLOP per parameter and token forward and 4 backward; memory as
weights, gradients and Adam's two moments in float32 (the moments in 8 bits, where the optimiser has them so),
and activations of 17 values per layer, token and hidden unit (Korthikanti et al. 2022), or one and those of a
single layer under gradient checkpointing. The figures are orders of magnitude, for a decision to start; each
says how it was reached.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from deft_engine.grading import level_sizes
from deft_engine.losses import Method, PolicyLoss
from deft_engine.plan import External, Made, Plan, PlannedStage, Source
from deft_engine.spec_sections import TrainingSpec
from deft_engine.types import Level

CHARS_PER_TOKEN = 4.0
FLOPS_PER_SECOND = 1e11
"""Of a small CPU; a GPU is 100 to 1,000 times faster."""

_METHOD: TypeAdapter[PolicyLoss] = TypeAdapter(Method)
_FLOAT_BYTES = 4
_TRAINED_BYTES = {"adamw": 16, "adamw_8bit": 10}  # a parameter: weight, gradient, two moments
_ACTIVATIONS = 17
_MODELS = ("model", "reward_model", "reference_model")
_SCORED = {"first": 1.0, "best": 1.0, "ends": 2.0}  # responses of a sample that are scored


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What is known of a dataset without reading it: its import's summary."""

    subsets: Mapping[str, int]
    responses: float
    """Responses of a sample, mean."""
    prompt_tokens: float
    response_tokens: float

    @classmethod
    def of_summary(cls, summary: Mapping[str, Any]) -> DataFacts:
        """From the result of an ``import`` stage."""
        counts = {int(number): samples for number, samples in summary["responses_per_sample"].items()}
        samples = max(1, sum(counts.values()))
        return cls(
            subsets=summary["subsets"],
            responses=sum(number * count for number, count in counts.items()) / samples,
            prompt_tokens=summary["mean_prompt_chars"] / CHARS_PER_TOKEN,
            response_tokens=summary["mean_response_chars"] / CHARS_PER_TOKEN,
        )

    @property
    def samples(self) -> int:
        """All samples."""
        return sum(self.subsets.values())

    def tokens(self, responses: float, max_length: float) -> float:
        """Of a sample whose prompt is stored once and makes room for a response within ``max_length``."""
        response = min(self.response_tokens, max_length)
        return min(self.prompt_tokens, max_length - response) + responses * response


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a decoder model."""

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int

    @property
    def parameters(self) -> int:
        """Embeddings (tied), attention and a gated MLP in each layer."""
        return self.vocabulary * self.hidden + self.layers * self.hidden * (
            4 * self.hidden + 3 * self.intermediate
        )


_BUILTIN_SHAPES = {
    "builtin:tiny": ModelShape(2048, 128, 384, 4),
    "builtin:smollm2": ModelShape(49_152, 576, 1536, 30),
}


@dataclass(frozen=True, slots=True)
class StageCost:
    """Null is what cannot be known yet: the data is still being read, or the model is on a hub."""

    stage: str
    fingerprint: str
    samples: int | None = None
    steps: int | None = None
    tokens: int | None = None
    memory_bytes: int | None = None
    seconds: float | None = None


@dataclass(slots=True)
class Estimator:
    """Estimates the stages of one plan.

    Args:
        plan: the plan.
        data: fingerprint of an ``import`` stage -> what is known of its samples.
        root_of: the model from outside that the model of another job was trained from, if it can be told.
    """

    plan: Plan
    data: Mapping[str, DataFacts]
    root_of: Callable[[Made], External | None]
    _stages: dict[str, PlannedStage] = field(init=False)

    def __post_init__(self) -> None:
        self._stages = {stage.fingerprint: stage for stage in self.plan.stages}

    def costs(self) -> list[StageCost]:
        """Of each stage of the plan, in its order."""
        return [self._cost(stage) for stage in self.plan.stages]

    def _cost(self, stage: PlannedStage) -> StageCost:
        facts = self._facts(stage)
        if facts is None:
            return StageCost(stage.stage, stage.fingerprint)
        match stage.stage:
            case "train" | "train_reward":
                return self._training(stage, facts)
            case "reference":
                length = stage.spec["max_length"]
                return self._forward(stage, facts, self._chosen(stage, facts), facts.responses, length)
            case "score":
                scored = _SCORED.get(stage.spec["responses"], facts.responses)
                return self._forward(stage, facts, facts.samples, scored, stage.spec["max_length"])
            case "generate" | "evaluate":
                return self._generated(stage, facts)
            case _:
                tokens = facts.samples * facts.tokens(facts.responses, math.inf)
                return StageCost(stage.stage, stage.fingerprint, facts.samples, tokens=round(tokens))

    def _training(self, stage: PlannedStage, facts: DataFacts) -> StageCost:
        training = TrainingSpec.model_validate(stage.spec["training"])
        samples = self._chosen(stage, facts)
        per_step = training.batch_size * training.gradient_accumulation
        per_epoch = math.ceil(samples / per_step)
        steps = training.max_steps or training.epochs * per_epoch
        epochs, more_steps = divmod(steps, per_epoch)
        of_sample = facts.tokens(_trained_responses(stage, facts), training.max_length)
        tokens = (epochs * samples + more_steps * per_step) * of_sample
        shape = self._shape(stage.inputs.get("model"))
        if shape is None:
            return StageCost(stage.stage, stage.fingerprint, samples, steps, round(tokens))
        kept = shape.layers + _ACTIVATIONS if training.gradient_checkpointing else shape.layers * _ACTIVATIONS
        activations = training.batch_size * of_sample * kept * shape.hidden
        memory = _TRAINED_BYTES[training.optimizer] * shape.parameters + _FLOAT_BYTES * activations
        seconds = 6 * shape.parameters * tokens / FLOPS_PER_SECOND
        return StageCost(
            stage.stage, stage.fingerprint, samples, steps, round(tokens), round(memory), seconds
        )

    def _forward(
        self, stage: PlannedStage, facts: DataFacts, samples: int, responses: float, max_length: float
    ) -> StageCost:
        tokens = round(samples * facts.tokens(responses, max_length))
        shapes = [self._shape(stage.inputs[name]) for name in _MODELS if name in stage.inputs]
        known = [shape.parameters for shape in shapes if shape is not None]
        if not known or len(known) < len(shapes):
            return StageCost(stage.stage, stage.fingerprint, samples, tokens=tokens)
        seconds = 2 * sum(known) * tokens / FLOPS_PER_SECOND
        memory = _FLOAT_BYTES * max(known)  # one at a time
        return StageCost(stage.stage, stage.fingerprint, samples, None, tokens, memory, seconds)

    def _generated(self, stage: PlannedStage, facts: DataFacts) -> StageCost:
        spec = stage.spec if stage.stage == "generate" else self._upstream(stage, "generations").spec
        samples = min(facts.samples, spec["samples"] or facts.samples)
        whole = DataFacts(facts.subsets, 1.0, facts.prompt_tokens, spec["max_new_tokens"])
        length = spec["max_prompt_length"] + spec["max_new_tokens"]
        return self._forward(stage, whole, samples, 1.0, length)

    def _chosen(self, stage: PlannedStage, facts: DataFacts) -> int:
        """Samples of the levels that a stage uses; their sizes follow from a and c (section 3.1)."""
        levels = set(stage.spec.get("levels", ()))
        if not levels:
            return facts.samples
        grade = self._upstream(stage, "levels").spec
        sizes = {Level.A: 0, Level.B: 0, Level.C: 0}
        for samples in facts.subsets.values():
            best, worst = level_sizes(samples, grade["a"], grade["c"])
            sizes[Level.A] += best
            sizes[Level.C] += worst
            sizes[Level.B] += samples - best - worst
        return sum(size for level, size in sizes.items() if level in levels)

    def _facts(self, stage: PlannedStage) -> DataFacts | None:
        """The data that a stage works on: its samples, or those that its generations answer."""
        if stage.stage == "import":
            return self.data.get(stage.fingerprint)
        if "questions" in stage.inputs:
            return None
        if "samples" not in stage.inputs:
            return self._facts(self._upstream(stage, "generations"))
        return self._facts(self._upstream(stage, "samples"))

    def _upstream(self, stage: PlannedStage, name: str) -> PlannedStage:
        source = stage.inputs[name]
        assert isinstance(source, Made)
        return self._stages[source.fingerprint]

    def _shape(self, source: Source | None) -> ModelShape | None:
        while isinstance(source, Made):
            stage = self._stages.get(source.fingerprint)
            source = stage.inputs.get("model") if stage else self.root_of(source)
        return model_shape(source.uri) if source is not None else None


def _trained_responses(stage: PlannedStage, facts: DataFacts) -> float:
    """Responses of a sample that a training computes, mean: those that its loss looks at."""
    reward = stage.spec.get("distribution_reward")
    if stage.stage == "train_reward" or (reward and reward["on"] == "all"):
        return facts.responses
    method = _METHOD.validate_python(stage.spec["method"])
    return min(facts.responses, len(method.needed(range(math.ceil(facts.responses)))))


def model_shape(uri: str) -> ModelShape | None:
    """The sizes of a model from outside, where they can be told without loading it."""
    if uri in _BUILTIN_SHAPES:
        return _BUILTIN_SHAPES[uri]
    if not uri.startswith("path:"):
        return None
    try:
        config = json.loads((Path(uri.removeprefix("path:")) / "config.json").read_bytes())
        hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
        intermediate = int(config.get("intermediate_size", 4 * hidden))
        return ModelShape(int(config["vocab_size"]), hidden, intermediate, layers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
