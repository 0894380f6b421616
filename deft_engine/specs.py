"""What a user may ask for: one model per kind of job, a union told apart by ``kind``. No torch here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, TypeAdapter, field_validator, model_validator

from deft_engine.base import DatasetName, ModelName, Name, Spec, Text
from deft_engine.endpoints.spec import EndpointModel, EndpointSpec
from deft_engine.losses import DPO, BradleyTerry, Method
from deft_engine.presets import fill_from_preset, load_preset
from deft_engine.spec_sections import (
    DeftSpec,
    EvaluationSpec,
    ModelSpec,
    ResourcesSpec,
    RewardTrainingSpec,
    TrainingSpec,
    ValidationSpec,
)


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
    validation: ValidationSpec | None = None
    """null keeps the last epoch."""
    evaluation: EvaluationSpec | None = None
    """null trains without evaluating; where it is not given but an ``eval_dataset`` is, the defaults hold."""

    @model_validator(mode="before")
    @classmethod
    def _a_given_dataset_is_evaluated_on(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("eval_dataset") is not None:
            return {"evaluation": {}, **data}
        return data

    @model_validator(mode="after")
    def _validation_has_a_whole_model(self) -> AlignJob:
        if self.validation is not None and self.resources.engine in ("zero-3", "fsdp"):
            raise ValueError(
                f"validation needs the whole model in one process, and {self.resources.engine} divides it; "
                "set validation to null, or resources.launcher to torchrun, or to deepspeed with zero_stage "
                "1 or 2"
            )
        return self


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
    training: RewardTrainingSpec = RewardTrainingSpec()


class RewardModelSpec(Spec):
    """A reward model that is evaluated itself, on the preference pairs of ``eval_dataset``, all of them.

    Of ``evaluation`` the reward model counts and nothing else: the two are compared.
    """

    reward_model: ModelName
    revision: str | None = Field(None, max_length=200)


class ImportedModel(Spec):
    """A model whose answers were made elsewhere and imported; they take the place of generating."""

    generations: DatasetName
    """Their id in the service; for ``deft run`` a file's path."""


_TAGS = {"endpoint": "asked", "reward_model": "judging", "generations": "imported"}
"""Field that only this way to name a model has -> its tag."""


def model_kind(given: Any) -> str:
    """Which of the ways to name an evaluated model a value is, as it was given or read."""
    fields = given if isinstance(given, dict) else type(given).model_fields if isinstance(given, Spec) else ()
    return next((tag for name, tag in _TAGS.items() if name in fields), "loaded")


EvaluatedModel = Annotated[
    Annotated[ModelSpec, Tag("loaded")]
    | Annotated[EndpointModel, Tag("asked")]
    | Annotated[RewardModelSpec, Tag("judging")]
    | Annotated[ImportedModel, Tag("imported")],
    Discriminator(model_kind),
]
"""A model that is loaded (``{"base": ...}``), an endpoint that is asked (``{"endpoint": ...}``), a reward
model (``{"reward_model": ...}``), or a model whose answers were imported (``{"generations": ...}``)."""


class EvaluateJob(_Job):
    """Generate with a model, let an endpoint answer, or take imported answers, and evaluate; or evaluate a
    reward model."""

    kind: Literal["evaluate"] = "evaluate"
    eval_dataset: DatasetName
    model: EvaluatedModel
    evaluation: EvaluationSpec = EvaluationSpec()


class AugmentJob(_Job):
    """Let an endpoint write a further response to each sample (D_2 to D_3), or refine its reference.

    The result is a dataset of its own, in the service and as ``augmented.jsonl``.
    """

    kind: Literal["augment"] = "augment"
    dataset: DatasetName
    endpoint: EndpointSpec
    mode: Literal["response", "reference"] = "response"
    """``reference``: a better text in place of the annotated best response, for a fairer BLEU (Fig. 2)."""
    place: Literal["first", "last"] = "first"
    """Of a further response in the annotated order, which a grader whose rewards rank goes beyond."""
    max_new_tokens: int = Field(256, ge=1, le=32_768)
    temperature: float = Field(0.0, ge=0, le=2)
    samples: int | None = Field(None, ge=1)
    """So many random samples; null takes all."""
    seed: int = Field(42, ge=0, le=2**31 - 1)


AnsweringModel = Annotated[
    Annotated[ModelSpec, Tag("loaded")] | Annotated[EndpointModel, Tag("asked")], Discriminator(model_kind)
]
"""A model that is loaded (``{"base": ...}``), or an endpoint that is asked (``{"endpoint": ...}``)."""


class JudgeJob(_Job):
    """MT-Bench: a judge grades answers to questions of two turns. All files are in FastChat's formats."""

    kind: Literal["judge"] = "judge"
    questions: DatasetName
    answers: DatasetName | None = None
    """A model's answers; null: those that ``model`` gives now."""
    model: AnsweringModel | None = None
    against: DatasetName | None = None
    """Another model's answers: the judge compares the two, in both orders, instead of grading."""
    references: DatasetName | None = None
    """Reference answers, shown to the judge for math, reasoning and coding."""
    judge: EndpointSpec
    max_new_tokens: int = Field(1024, ge=1, le=32_768)
    """Of an answer."""
    judge_max_tokens: int = Field(2048, ge=16, le=32_768)
    seed: int = Field(42, ge=0, le=2**31 - 1)
    """Sent with the questions, of which some are answered at a temperature above 0."""

    @model_validator(mode="after")
    def _answers_come_from_one_place(self) -> JudgeJob:
        if (self.answers is None) == (self.model is None):
            raise ValueError("name either answers (a file) or model (which answers now), and one only")
        return self


Job = AlignJob | GradeJob | RewardModelJob | EvaluateJob | AugmentJob | JudgeJob
"""A job of any kind."""

JobSpec = Annotated[Job, Field(discriminator="kind")]
job_spec_adapter: TypeAdapter[Job] = TypeAdapter(JobSpec)
