"""The stage table: what each stage needs, what it makes, and where its function is. No torch at import.

A stage is a pure step: a validated spec and input artifacts in, output artifacts out. The request schema, the
worker, the command line and the docs follow from this table.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from typing import Annotated, Any, Literal

from pydantic import Field

from deft_engine.base import Name, Spec
from deft_engine.evaluators import Evaluator
from deft_engine.graders import Scorer
from deft_engine.graders.grader import Responses, SampleScore
from deft_engine.losses import BradleyTerry, Method
from deft_engine.spec_sections import Engine, GradShare, LoraSpec, Scale, Template, Thresholds, TrainingSpec
from deft_engine.types import Level

Dtype = Literal["auto", "float32", "bfloat16"]
RankBy = Literal["auto", "annotation", "reward"]
DatasetFormat = Literal[
    "auto", "hh_rlhf", "pairwise", "ranked", "pro", "ultrafeedback", "sharegpt", "fastchat"
]


class Queue(StrEnum):
    """Where a stage runs, so that counting tokens never waits for a device."""

    CPU = "cpu"
    GPU = "gpu"


class ImportSpec(Spec):
    """Read an upload into samples and a ledger."""

    format: DatasetFormat = "auto"
    subset: Name | None = None
    """Subset of rows that carry none."""


class TrainRewardSpec(Spec):
    """Train a reward model (eq 1); with LoRA it makes ``adapter`` beside ``model``."""

    method: BradleyTerry
    training: TrainingSpec
    engine: Engine = "single"
    processes: int = 1
    dtype: Dtype
    lora: LoraSpec | None
    template: Template


class DividedSpec(Spec):
    """Work on each sample alone."""

    processes: int = 1
    """Among which the samples are shared out; no part of the fingerprint."""


class ScoreSpec(DividedSpec):
    """Give responses a reward."""

    grader: Scorer
    """Its models are inputs of the stage, so that a fingerprint holds no name of them."""
    responses: Responses
    """The others' reward is null."""
    max_length: int = 1024
    """Tokens of prompt and response that a model sees; prompts are cut on the left."""
    template: Template = "auto"
    """Of the job's own model, where the grader works with it."""
    dtype: Dtype = "auto"


class GradeSpec(Spec):
    """Sort each subset by score and cut it into levels (section 3.1)."""

    a: float
    c: float
    rank_by: RankBy
    score: SampleScore = "best"


class DistributionSpec(Spec):
    """Count tokens into Q+ and Q- by level (section 3.2, eqs 13-15); without scores y_1 and y_l alone."""

    thresholds: Thresholds
    rank_by: RankBy
    percent: float = 100.0
    """Of the samples; a smaller share is part of every larger one."""


class ReferenceSpec(DividedSpec):
    """Log-probabilities of the responses under the initial policy, once per dataset and model."""

    max_length: int
    template: Template
    dtype: Dtype
    levels: tuple[Level, ...]
    """Empty: all samples."""


class DistributionRewardSpec(Spec):
    """The term ``- omega R_dis`` of eq 18."""

    omega: Annotated[float, Field(ge=0)] | GradShare
    scale: Scale
    on: Literal["chosen", "all"]


class EpochsSpec(Spec):
    """Choose the epoch whose model answers best."""

    samples: int
    seed: int
    max_new_tokens: int
    max_prompt_length: int
    batch_size: int


class TrainSpec(Spec):
    """Train a policy by a method, in DEFT form where ``distribution_reward`` is given.

    With LoRA it makes ``adapter`` beside ``model``.
    """

    method: Method
    training: TrainingSpec
    engine: Engine = "single"
    processes: int = 1
    distribution_reward: DistributionRewardSpec | None
    levels: tuple[Level, ...]
    """Empty: all samples."""
    rank_by: RankBy
    dtype: Dtype
    lora: LoraSpec | None
    template: Template
    validation: EpochsSpec | None = None
    """null keeps the last epoch."""


class ImportGenerationsSpec(Spec):
    """Match answers made elsewhere to the samples whose prompts they answer."""


class DecodingSpec(Spec):
    """How a loaded model answers: greedily."""

    max_new_tokens: int
    max_prompt_length: int
    batch_size: int
    dtype: Dtype
    template: Template


class GenerateSpec(DividedSpec, DecodingSpec):
    """Answer greedily, once a prompt. An endpoint gets prompts whole, ``max_new_tokens`` and no more.

    Of imported answers ``samples`` and ``seed`` choose; how they were decoded is not known here.
    """

    samples: int | None
    seed: int


class AugmentSpec(Spec):
    """Let an endpoint write a further response to each sample, or refine its reference."""

    mode: Literal["response", "reference"]
    place: Literal["first", "last"]
    max_new_tokens: int
    temperature: float
    samples: int | None
    seed: int


class AnswerSpec(Spec):
    """Let an endpoint answer MT-Bench's questions."""

    max_new_tokens: int
    seed: int


class AnswerLocallySpec(DecodingSpec):
    """Answer MT-Bench's questions by a loaded model."""

    model_id: str
    """The model's name in ``answers.jsonl``."""


class JudgeSpec(Spec):
    """Let an endpoint grade answers to MT-Bench's questions, or compare them with another model's."""

    max_new_tokens: int


class RewardQualitySpec(Spec):
    """Rank held-out preference pairs by a reward model's scores."""

    pairs: Literal["best_worst"] = "best_worst"
    """Of each sample: the annotated best response against the worst."""


class EvaluateSpec(Spec):
    """Score generations."""

    evaluators: tuple[Evaluator, ...]
    dtype: Dtype = "auto"
    template: Template = "auto"
    """Of the model whose predictions are looked at, where an evaluator does."""
    warnings: tuple[str, ...] = ()
    """What the plan already knows a reader must be told (for example: r_eval is r_train)."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A row of the table. ``function`` is ``module:name``: ``run.StageContext`` in, a small result out."""

    name: str
    spec: type[Spec]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    queue: Queue
    version: int
    function: str
    optional_inputs: tuple[str, ...] = ()

    def load(self) -> Callable[[Any], dict[str, Any]]:
        """Import the stage's function; only the engine's own process does this.

        Without the garbage collector, which would look through all of torch's new objects again and again.
        """
        module, _, name = self.function.partition(":")
        collected = gc.isenabled()
        gc.disable()
        try:
            return getattr(import_module(module), name)  # type: ignore[no-any-return]
        finally:
            if collected:
                gc.enable()


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "import", ImportSpec, ("upload",), ("samples.parquet", "ledger.jsonl"), Queue.CPU, 1,
            "deft_engine.data.importing:run",
        ),
        Stage(
            "train_reward", TrainRewardSpec, ("samples", "model"), ("model",), Queue.GPU, 3,
            "deft_engine.train_reward:run",
        ),
        Stage(
            "score", ScoreSpec, ("samples",), ("scores.parquet",), Queue.GPU, 1,
            "deft_engine.scoring:run",
            optional_inputs=("reward_model", "model", "reference_model", "tokenizer", "qdiff"),
        ),
        Stage(
            "grade", GradeSpec, ("samples", "scores"), ("levels.parquet", "grading.json"), Queue.CPU, 1,
            "deft_engine.grading:run",
        ),
        Stage(
            "distribution", DistributionSpec, ("samples", "tokenizer"),
            ("qdiff.safetensors", "qdiff_tokens.json"), Queue.CPU, 2, "deft_engine.distribution:run",
            optional_inputs=("scores", "levels"),
        ),
        Stage(
            "reference", ReferenceSpec, ("samples", "model"), ("reference.parquet",), Queue.GPU, 1,
            "deft_engine.reference:run", optional_inputs=("levels",),
        ),
        Stage(
            "train", TrainSpec, ("samples", "model"), ("model",), Queue.GPU, 2,
            "deft_engine.train_policy:run", optional_inputs=(
                "levels", "scores", "qdiff", "reference", "validation_samples", "validation_reward_model",
            ),
        ),
        Stage(
            "import_generations", ImportGenerationsSpec, ("upload", "samples"),
            ("imported.jsonl", "ledger.jsonl"), Queue.CPU, 1, "deft_engine.data.imported_generations:run",
        ),
        Stage(
            "generate", GenerateSpec, ("samples",), ("generations.jsonl",), Queue.GPU, 1,
            "deft_engine.answering:run", optional_inputs=("model", "endpoint", "generations"),  # one of them
        ),
        Stage(
            "augment", AugmentSpec, ("samples", "endpoint"), ("augmented.jsonl",), Queue.CPU, 1,
            "deft_engine.endpoints.augment:run",
        ),
        Stage(
            "answer", AnswerSpec, ("questions", "endpoint"), ("answers.jsonl",), Queue.CPU, 1,
            "deft_engine.mt_bench.answering:run",
        ),
        Stage(
            "answer_locally", AnswerLocallySpec, ("questions", "model"), ("answers.jsonl",), Queue.GPU, 1,
            "deft_engine.mt_bench.local_answers:run",
        ),
        Stage(
            "judge", JudgeSpec, ("questions", "answers", "endpoint"), ("judgments.jsonl", "mt_bench.json"),
            Queue.CPU, 1, "deft_engine.mt_bench.judging:run", optional_inputs=("references", "against"),
        ),
        Stage(
            "reward_quality", RewardQualitySpec, ("samples", "scores"),
            ("results.json", "sample_scores.parquet"), Queue.CPU, 1, "deft_engine.reward_quality:run",
            optional_inputs=("other_scores",),
        ),
        Stage(
            "evaluate", EvaluateSpec, ("generations",), ("results.json", "sample_scores.parquet"),
            Queue.GPU, 3, "deft_engine.evaluation:run",
            optional_inputs=("reward_model", "model", "reference_model"),
        ),
    )
}  # fmt: skip
