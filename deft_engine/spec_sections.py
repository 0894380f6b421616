"""The sections of a job's spec: model, DEFT, training, validation, evaluation, resources. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal, cast

from pydantic import Field, field_validator, model_validator

from deft_engine.base import DatasetName, ModelName, Spec, Text
from deft_engine.graders import FileScores, Grader
from deft_engine.types import Level

Scale = Literal["normalised", "counts"]
Template = Literal["auto", "chat", "hh", "oasst"]
Engine = Literal["single", "ddp", "zero-1", "zero-2", "zero-3", "fsdp"]
"""How training processes share the work: one alone, copies of the model, or parts of it."""


class LoraSpec(Spec):
    """Low-rank adapters (peft), merged into ``model/`` when training ends.

    ``adapter/`` has them alone, for ``peft.PeftModel.from_pretrained`` on the base model.
    """

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
    """Of its arithmetic and of a grader's model; ``auto``: float32 on a CPU, bfloat16 on a device that
    has it."""
    lora: LoraSpec | None = None
    template: Template = "auto"
    """``auto``: what a model made here was trained with, else ``chat`` where the tokenizer has a template,
    else ``hh``."""


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
    counted: float = Field(100.0, gt=0, le=100)
    """Percent of the samples whose tokens are counted into Q_diff, a fixed random choice (Limitations)."""
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
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """``adamw_8bit`` keeps both moments in 8 bits (Dettmers et al. 2022), a quarter of their memory.

    It needs the extra ``bitsandbytes`` where training runs."""
    learning_rate: float = Field(5e-7, gt=0, le=10)
    lr_scheduler: Literal["linear", "constant", "cosine"] = "linear"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0, le=10)
    max_grad_norm: float = Field(1.0, gt=0)
    gradient_checkpointing: bool = False
    """Compute each layer again in the backward pass: less memory, about a third more time."""
    batch_size: int = Field(8, ge=1, le=4096)
    """Samples (not responses) of one forward and backward pass, of all processes together."""
    gradient_accumulation: int = Field(1, ge=1, le=4096)
    max_length: int = Field(512, ge=16, le=131_072)
    """Tokens of prompt and response together; prompts are cut on the left, then responses on the right."""
    seed: int = Field(42, ge=0, le=2**32 - 1)
    checkpoint_every: int = Field(50, ge=1)
    """Optimiser steps between checkpoints: what a crash can cost."""


class RewardTrainingSpec(TrainingSpec):
    """The optimisation of a reward model, whose head is new and learns at a higher rate."""

    learning_rate: float = Field(1e-5, gt=0, le=10)


class DivergenceSpec(Spec):
    """How far the evaluated model's predictions lie from those of the model that it started from."""

    reference: ModelName | None = None
    """null: the model that the job trains from; a job of kind ``evaluate`` names one."""
    revision: str | None = Field(None, max_length=200)


class EvaluationSpec(Spec):
    """Greedy generation and its scores (section 4.3)."""

    reward_model: ModelName | None = None
    """r_eval; should differ from the grader's model."""
    revision: str | None = Field(None, max_length=200)
    bleu: bool = True
    distinct_n: bool = False
    """How varied the answers are: distinct-1, -2 and -3."""
    divergence: DivergenceSpec | None = None
    """KL per token of the answers from a reference model: what alignment costs. ``{}`` asks for it."""
    perplexity: bool = False
    """Of the annotated best responses under the evaluated model."""
    max_new_tokens: int = Field(128, ge=1, le=4096)
    max_prompt_length: int = Field(512, ge=16, le=131_072)
    samples: int | None = Field(256, ge=1)
    """So many random samples; null takes all."""
    seed: int = Field(42, ge=0, le=2**32 - 1)
    batch_size: int = Field(64, ge=1, le=1024)
    """Answers that are decoded at a time."""


class ValidationSpec(Spec):
    """After each epoch the model answers some prompts; the best rewarded epoch is kept (section 4.3)."""

    dataset: DatasetName | None = None
    """Of the prompts; null: the ``eval_dataset``, whose figures then flatter the model a little."""
    reward_model: ModelName | None = None
    """r_train; null: the grader's."""
    revision: str | None = Field(None, max_length=200)
    samples: int = Field(256, ge=1)
    """So many random samples, the same each time."""
    seed: int = Field(42, ge=0, le=2**32 - 1)
    max_new_tokens: int = Field(128, ge=1, le=4096)
    max_prompt_length: int = Field(512, ge=16, le=131_072)
    batch_size: int = Field(64, ge=1, le=1024)
    """Answers that are decoded at a time."""


class DeepSpeedSpec(Spec):
    """What DeepSpeed divides between the processes."""

    zero_stage: Literal[1, 2, 3] = 2
    """1: the optimiser's state, 2: gradients too, 3: the weights too."""


class ResourcesSpec(Spec):
    """On how many processes a model is trained, and how they share the work.

    The batch is that of all processes together, so ``processes`` changes the speed and not the model.
    """

    processes: int = Field(1, ge=1, le=64)
    """Processes on one machine: one for each of its GPUs, or parts of its cores."""
    launcher: Literal["auto", "single", "torchrun", "deepspeed", "fsdp"] = "auto"
    """``torchrun`` keeps a whole model in each process (DDP); ``deepspeed`` and ``fsdp`` divide it. ``auto``:
    ``deepspeed`` where that is given, else ``single`` or ``torchrun`` by the number of processes."""
    deepspeed: DeepSpeedSpec | None = None

    @model_validator(mode="after")
    def _fits(self) -> ResourcesSpec:
        if self.launcher == "single" and self.processes > 1:
            raise ValueError(
                f"launcher is single, but processes is {self.processes}; set launcher to torchrun, deepspeed "
                "or fsdp, or processes to 1"
            )
        if self.deepspeed is not None and self.launcher not in ("auto", "deepspeed"):
            raise ValueError(
                f"deepspeed is given, but launcher is {self.launcher}; set launcher to deepspeed, or "
                "deepspeed to null"
            )
        return self

    @property
    def engine(self) -> Engine:
        """How the processes share the work."""
        if self.launcher == "fsdp":
            return "fsdp"
        if self.launcher == "deepspeed" or self.deepspeed is not None:
            stage = (self.deepspeed or DeepSpeedSpec()).zero_stage
            return cast(Engine, f"zero-{stage}")
        return "ddp" if self.launcher == "torchrun" or self.processes > 1 else "single"
