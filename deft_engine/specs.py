"""What a user may ask for: one model per kind of job, a union told apart by ``kind``. No torch here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, field_validator, model_validator

from deft_engine.base import DatasetName, ModelName, Name, Spec, Text
from deft_engine.graders import FileScores, Grader
from deft_engine.losses import DPO, BradleyTerry, Method
from deft_engine.presets import fill_from_preset, load_preset
from deft_engine.types import Level

Scale = Literal["normalised", "counts"]
Template = Literal["auto", "chat", "hh", "oasst"]


class LoraSpec(Spec):
    """Low-rank adapters (peft); merged into ``model/`` when training ends."""

    r: int = Field(16, ge=1, le=1024)
    alpha: float = Field(32.0, gt=0, le=4096)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: tuple[Text, ...] | Literal["all-linear"] = "all-linear"


class ModelSpec(Spec):
    """A policy to start from."""

    base: ModelName
    """``tiny`` (built in), a local path under the allowed roots, a hub id, or ``job:<id>``."""
    revision: str | None = Field(None, max_length=200)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: float32 on a CPU, bfloat16 on a device that has it."""
    lora: LoraSpec | None = None
    template: Template = "auto"
    """``auto``: the tokenizer's chat template where it has one, else ``hh``."""


class GradShare(Spec):
    """Set omega so that the distribution reward gives this share of the base loss's gradient."""

    grad_share: float = Field(gt=0, lt=10)
    hold: bool = False
    """Keep the share while training moves it: omega is corrected slowly wherever the share is measured."""


class Thresholds(Spec):
    """Where a middle response of min-max reward (eq 15) counts into Q+ or Q- (section 3.2); strict."""

    a_positive: float = Field(0.8, ge=0, le=1)
    b_positive: float = Field(0.9, ge=0, le=1)
    b_negative: float = Field(0.1, ge=0, le=1)
    c_negative: float = Field(0.2, ge=0, le=1)


class DeftSpec(Spec):
    """DEFT (section 3): grading into levels, Q_diff, and the distribution reward of weight omega."""

    a: float = Field(3.73, gt=0, le=100)
    """Level A: the best ``a`` percent of each subset."""
    c: float = Field(12.5, ge=0, le=100)
    """Level C: the worst ``c`` percent of each subset."""
    omega: Annotated[float, Field(ge=0)] | GradShare = GradShare(grad_share=0.03)
    """Weight of R_dis (eq 18): a number, or the share of the gradient that it is to have."""
    scale: Scale = "normalised"
    """Q_diff of R_dis: normalised as in eq 14, or the difference of the raw token counts."""
    on: Literal["chosen", "all"] = "chosen"
    """Responses on which R_dis is computed."""
    levels: tuple[Level, ...] = (Level.A,)
    """Levels that are trained on (the paper: A alone)."""
    rank_by: Literal["auto", "annotation", "reward"] = "auto"
    """``auto``: the annotated order for l = 2, the rewards' order for l > 2 if the grader's rewards rank.

    A method that looks at rewards trains on the rewards' order."""
    thresholds: Thresholds = Thresholds()
    grader: Grader = FileScores()

    @field_validator("levels")
    @classmethod
    def _levels_once(cls, levels: tuple[Level, ...]) -> tuple[Level, ...]:
        if not levels:
            raise ValueError('names no level; training needs at least one, for example ["A"]')
        return tuple(sorted(set(levels)))

    @model_validator(mode="after")
    def _shares_fit(self) -> DeftSpec:
        if self.a + self.c > 100:
            raise ValueError(f"a + c is {self.a + self.c:g}, more than 100 percent of the data; lower a or c")
        return self

    @model_validator(mode="after")
    def _grader_ranks(self) -> DeftSpec:
        if self.rank_by == "reward" and not self.grader.ranks:
            raise ValueError(
                f"rank_by is reward, but the grader {self.grader.name} does not tell which of two responses "
                "is better; set rank_by to auto or annotation"
            )
        return self


class TrainingSpec(Spec):
    """The optimisation. The defaults of batch size and lengths are the paper's (Appendix A.1)."""

    epochs: int = Field(1, ge=1, le=1000)
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many optimiser steps, whatever ``epochs`` says."""
    learning_rate: float = Field(5e-7, gt=0, le=10)
    lr_scheduler: Literal["linear", "constant", "cosine"] = "linear"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0, le=10)
    max_grad_norm: float = Field(1.0, gt=0)
    gradient_checkpointing: bool = False
    """Compute each layer again in the backward pass: less memory, about a third more time."""
    batch_size: int = Field(8, ge=1, le=4096)
    """Samples (not responses) of one forward and backward pass."""
    gradient_accumulation: int = Field(1, ge=1, le=4096)
    max_length: int = Field(512, ge=16, le=131_072)
    """Tokens of prompt and response together; prompts are cut on the left, then responses on the right."""
    seed: int = Field(42, ge=0, le=2**32 - 1)
    checkpoint_every: int = Field(50, ge=1)
    """Optimiser steps between checkpoints: what a crash can cost."""


class EvaluationSpec(Spec):
    """Greedy generation and its scores (section 4.3)."""

    reward_model: ModelName | None = None
    """r_eval; should differ from the grader's model."""
    revision: str | None = Field(None, max_length=200)
    bleu: bool = True
    max_new_tokens: int = Field(128, ge=1, le=4096)
    max_prompt_length: int = Field(512, ge=16, le=131_072)
    samples: int | None = Field(256, ge=1)
    """So many random samples; null takes all."""
    seed: int = Field(42, ge=0, le=2**32 - 1)
    batch_size: int = Field(64, ge=1, le=1024)
    """Answers that are decoded at a time."""


class ResourcesSpec(Spec):
    """Where the engine runs. This version trains in one process."""

    processes: Literal[1] = 1
    launcher: Literal["auto", "single"] = "auto"
    deepspeed: None = None


class _Job(Spec):
    name: Name = "untitled"
    preset: Text | None = None
    """Fills what is not given; see the presets' list in the docs."""
    resources: ResourcesSpec = ResourcesSpec()

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        return fill_from_preset(data, cls.model_fields) if isinstance(data, dict) else data

    @field_validator("preset")
    @classmethod
    def _preset_exists(cls, name: str | None) -> str | None:
        if name is not None:
            load_preset(name)
        return name


class AlignJob(_Job):
    """Grade, extract Q_diff, train by a method in plain or DEFT form, generate and evaluate."""

    kind: Literal["align"] = "align"
    dataset: DatasetName
    eval_dataset: DatasetName | None = None
    """Where generations are evaluated; without it the training data, with a warning in the result."""
    model: ModelSpec
    method: Method = DPO()
    deft: DeftSpec | None = None
    """null is the plain method on all data."""
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec | None = None
    """null trains without evaluating."""


class GradeJob(_Job):
    """Grade a dataset into levels and extract Q_diff in the vocabulary of ``model``."""

    kind: Literal["grade"] = "grade"
    dataset: DatasetName
    model: ModelSpec = ModelSpec(base="tiny")
    """Its tokenizer is used, and by the graders ``distribution`` and ``implicit`` the model itself."""
    deft: DeftSpec = DeftSpec()


class RewardModelJob(_Job):
    """Train a reward model on ranked responses."""

    kind: Literal["reward_model"] = "reward_model"
    dataset: DatasetName
    model: ModelSpec
    method: BradleyTerry = BradleyTerry()
    training: TrainingSpec = TrainingSpec(learning_rate=1e-5)


class EvaluateJob(_Job):
    """Generate with a model and evaluate."""

    kind: Literal["evaluate"] = "evaluate"
    eval_dataset: DatasetName
    model: ModelSpec
    evaluation: EvaluationSpec = EvaluationSpec()


JobSpec = Annotated[AlignJob | GradeJob | RewardModelJob | EvaluateJob, Field(discriminator="kind")]
job_spec_adapter: TypeAdapter[AlignJob | GradeJob | RewardModelJob | EvaluateJob] = TypeAdapter(JobSpec)
