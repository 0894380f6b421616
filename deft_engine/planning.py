"""Which stages a job needs, and from what: its plan."""

from __future__ import annotations

from dataclasses import dataclass

from deft_engine.endpoint_plan import plan_augmenting, plan_judging
from deft_engine.endpoints.spec import EndpointModel
from deft_engine.errors import SpecError
from deft_engine.evaluation_plan import Answering, plan_evaluation, plan_reward_quality
from deft_engine.graders import RewardModelGrader
from deft_engine.losses import Method
from deft_engine.plan import Made, Plan, Resolver, Source
from deft_engine.spec_sections import DeftSpec, ModelSpec, Thresholds, ValidationSpec
from deft_engine.specs import (
    AlignJob,
    AugmentJob,
    EvaluateJob,
    GradeJob,
    ImportedModel,
    Job,
    JudgeJob,
    RewardModelJob,
    RewardModelSpec,
)
from deft_engine.stages import (
    DistributionRewardSpec,
    DistributionSpec,
    EpochsSpec,
    GradeSpec,
    ImportGenerationsSpec,
    RankBy,
    ReferenceSpec,
    ScoreSpec,
    TrainRewardSpec,
    TrainSpec,
)
from deft_engine.types import Level


def plan_job(spec: Job, resolver: Resolver) -> Plan:
    """The stages that a job needs.

    Raises:
        SpecError: a dataset or model cannot be resolved.
    """
    plan = Plan(processes=spec.resources.processes)
    match spec:
        case AlignJob():
            _plan_align(plan, spec, resolver)
        case GradeJob():
            samples = _samples(plan, spec.dataset, "/dataset", resolver)
            model = resolver.model(spec.model.base, spec.model.revision, "/model/base")
            _plan_grading(plan, spec.deft, samples, spec.model, model, resolver)
        case RewardModelJob():
            samples = _samples(plan, spec.dataset, "/dataset", resolver)
            model = resolver.model(spec.model.base, spec.model.revision, "/model/base")
            reward_spec = TrainRewardSpec(
                method=spec.method,
                training=spec.training,
                engine=spec.resources.engine,
                processes=spec.resources.processes,
                dtype=spec.model.dtype,
                lora=spec.model.lora,
                template=spec.model.template,
            )
            plan.add("train_reward", reward_spec, {"samples": samples, "model": model})
        case EvaluateJob():
            samples = _samples(plan, spec.eval_dataset, "/eval_dataset", resolver)
            if isinstance(spec.model, RewardModelSpec):
                plan_reward_quality(plan, spec.model, spec.evaluation, samples, resolver)
            else:
                answering = _answering(plan, spec.model, samples, resolver)
                plan_evaluation(plan, spec.evaluation, samples, answering, None, resolver)
        case AugmentJob():
            plan_augmenting(plan, spec, _samples(plan, spec.dataset, "/dataset", resolver), resolver)
        case JudgeJob():
            plan_judging(plan, spec, resolver)
    return plan


def _answering(
    plan: Plan, model: ModelSpec | EndpointModel | ImportedModel, samples: Made, resolver: Resolver
) -> Answering:
    if isinstance(model, ImportedModel):
        upload = resolver.generations(model.generations, samples, "/model/generations")
        planned = plan.add(
            "import_generations", ImportGenerationsSpec(), {"upload": upload, "samples": samples}
        )
        return Answering({"generations": Made(planned.fingerprint, "imported.jsonl")})
    if isinstance(model, EndpointModel):
        return Answering({"endpoint": resolver.endpoint(model.endpoint, "/model/endpoint")})
    source = resolver.model(model.base, model.revision, "/model/base")
    return Answering({"model": source}, model.dtype, model.template)


def _samples(plan: Plan, name: str, pointer: str, resolver: Resolver) -> Made:
    dataset = resolver.dataset(name, pointer)
    planned = plan.add("import", dataset.spec, {"upload": dataset.upload})
    return Made(planned.fingerprint, "samples.parquet")


@dataclass(frozen=True, slots=True)
class _Grading:
    levels: Made
    scores: Made
    qdiff: Made
    rank_by: RankBy
    reward_model: Source | None


def _plan_grading(
    plan: Plan, deft: DeftSpec, samples: Made, model_spec: ModelSpec, model: Source, resolver: Resolver
) -> _Grading:
    grader = deft.grader
    rank_by = deft.rank_by if grader.ranks else "annotation"
    inputs: dict[str, Source] = {"samples": samples}
    for of in grader.models():
        pointer = f"/deft/grader/{of.field}"
        inputs[of.input] = resolver.model(of.name, of.revision, pointer) if of.name is not None else model
    qdiff = None if grader.ranks else _plan_counting(plan, deft, rank_by, samples, model, {})
    if qdiff and grader.needs_qdiff:
        inputs["qdiff"] = qdiff
    scorer = grader.scorer()
    score_spec = ScoreSpec(
        grader=scorer,
        responses=grader.responses(rank_by),
        template=model_spec.template if "model" in inputs else "auto",
        dtype=model_spec.dtype if scorer.needs_model else "auto",
    )
    scores = Made(plan.add("score", score_spec, inputs).fingerprint, "scores.parquet")
    graded = plan.add(
        "grade",
        GradeSpec(a=deft.a, c=deft.c, rank_by=rank_by, score=grader.sample_score),
        {"samples": samples, "scores": scores},
    )
    levels = Made(graded.fingerprint, "levels.parquet")
    if qdiff is None:
        qdiff = _plan_counting(plan, deft, rank_by, samples, model, {"scores": scores, "levels": levels})
    return _Grading(levels, scores, qdiff, rank_by, inputs.get("reward_model"))


def _plan_counting(
    plan: Plan, deft: DeftSpec, rank_by: RankBy, samples: Made, tokenizer: Source, graded: dict[str, Source]
) -> Made:
    """Q_diff, by scores and levels where they say something of the responses between y_1 and y_l."""
    thresholds = deft.thresholds if graded else Thresholds()
    counted = plan.add(
        "distribution",
        DistributionSpec(thresholds=thresholds, rank_by=rank_by, percent=deft.counted),
        {"samples": samples, "tokenizer": tokenizer, **graded},
    )
    return Made(counted.fingerprint, "qdiff.safetensors")


def _plan_align(plan: Plan, spec: AlignJob, resolver: Resolver) -> None:
    samples = _samples(plan, spec.dataset, "/dataset", resolver)
    model = resolver.model(spec.model.base, spec.model.revision, "/model/base")
    inputs: dict[str, Source] = {"samples": samples, "model": model}
    levels = spec.deft.levels if spec.deft and len(spec.deft.levels) < len(Level) else ()
    grading: _Grading | None = None
    distribution_reward: DistributionRewardSpec | None = None
    if spec.deft:
        deft = _deft_for(spec.method, spec.deft)
        grading = _plan_grading(plan, deft, samples, spec.model, model, resolver)
        inputs |= {"scores": grading.scores} | ({"levels": grading.levels} if levels else {})
        if spec.deft.omega != 0:
            inputs["qdiff"] = grading.qdiff
            distribution_reward = DistributionRewardSpec(
                omega=spec.deft.omega, scale=spec.deft.scale, on=spec.deft.on
            )
    if type(spec.method).needs_reference:
        reference_spec = ReferenceSpec(
            max_length=spec.training.max_length,
            template=spec.model.template,
            dtype=spec.model.dtype,
            levels=levels,
        )
        needed = ("samples", "model", "levels")
        reference = plan.add("reference", reference_spec, {k: v for k, v in inputs.items() if k in needed})
        inputs["reference"] = Made(reference.fingerprint, "reference.parquet")
    train_spec = TrainSpec(
        method=spec.method,
        training=spec.training,
        engine=spec.resources.engine,
        processes=spec.resources.processes,
        distribution_reward=distribution_reward,
        levels=levels,
        rank_by=_trained_rank_by(spec.method, grading),
        dtype=spec.model.dtype,
        lora=spec.model.lora,
        template=spec.model.template,
        validation=_epochs_spec(spec),
    )
    if spec.validation is not None:
        inputs |= _validation_inputs(plan, spec, spec.validation, grading, resolver)
    trained = plan.add("train", train_spec, inputs)
    if spec.evaluation is None:
        if spec.eval_dataset is not None:
            resolver.dataset(spec.eval_dataset, "/eval_dataset")  # nothing reads it, but it must be there
        return
    if spec.eval_dataset is None:
        eval_samples = samples
        plan.warnings.append(
            "evaluated on the training data, since no eval_dataset was given; the figures flatter the model"
        )
    else:
        eval_samples = _samples(plan, spec.eval_dataset, "/eval_dataset", resolver)
    made = Made(trained.fingerprint, "model")
    grader = grading.reward_model if grading else None
    answering = Answering({"model": made}, spec.model.dtype, spec.model.template, start=model)
    plan_evaluation(plan, spec.evaluation, eval_samples, answering, grader, resolver)


def _epochs_spec(spec: AlignJob) -> EpochsSpec | None:
    asked = spec.validation
    if asked is None:
        return None
    return EpochsSpec(**asked.model_dump(include=set(EpochsSpec.model_fields)))


def _validation_inputs(
    plan: Plan, spec: AlignJob, asked: ValidationSpec, grading: _Grading | None, resolver: Resolver
) -> dict[str, Source]:
    """The prompts and the reward model by which an epoch is chosen.

    Raises:
        SpecError: there is no dataset or reward model to choose by.
    """
    named = asked.dataset or spec.eval_dataset
    if named is None:
        raise SpecError(
            "validation has no prompts: neither validation.dataset nor eval_dataset is given",
            hint="name one, or set validation to null",
            pointer="/validation/dataset",
        )
    pointer = "/validation/dataset" if asked.dataset else "/eval_dataset"
    if asked.reward_model is not None:
        judge: Source | None = resolver.model(asked.reward_model, asked.revision, "/validation/reward_model")
    else:
        judge = grading.reward_model if grading else None
    if judge is None:
        raise SpecError(
            "validation has no reward model: none is named and the data is not graded by one",
            hint="name r_train in validation.reward_model, or set validation to null",
            pointer="/validation/reward_model",
        )
    if spec.evaluation is not None and named == spec.eval_dataset:
        plan.warnings.append(
            "the epoch is chosen by answers to prompts of the eval_dataset, as in the paper; the figures "
            "flatter the model a little: name another validation.dataset"
        )
    return {
        "validation_samples": _samples(plan, named, pointer, resolver),
        "validation_reward_model": judge,
    }


def _trained_rank_by(method: Method, grading: _Grading | None) -> RankBy:
    if method.needs_rewards:
        return "reward"
    return grading.rank_by if grading else "annotation"


def _deft_for(method: Method, deft: DeftSpec) -> DeftSpec:
    """The grading that a method needs: with rewards of all responses where it looks at rewards.

    Raises:
        SpecError: the method ranks by reward, and the spec or its grader does not.
    """
    if not method.needs_rewards:
        return deft
    if not deft.grader.ranks:
        raise SpecError(
            f"this form of the method {method.name} needs rewards that rank the responses; those of the "
            f"grader {deft.grader.name} do not",
            hint="grade by reward_model, margin or scores, or take a form of the method without rewards",
            pointer="/deft/grader",
        )
    if deft.rank_by == "annotation":
        raise SpecError(
            f"this form of the method {method.name} ranks by reward, and deft.rank_by is annotation",
            hint="set deft.rank_by to auto or reward, or take a form of the method without rewards",
            pointer="/deft/rank_by",
        )
    if not isinstance(deft.grader, RewardModelGrader):
        return deft
    return deft.model_copy(update={"grader": deft.grader.model_copy(update={"scope": "all"})})
