"""The stages that answer and evaluate: the last of an ``align`` job's plan, all of an ``evaluate`` job's."""

from __future__ import annotations

from dataclasses import dataclass

from deft_engine.errors import SpecError
from deft_engine.evaluators import Bleu, DistinctN, Divergence, Evaluator, Length, Perplexity, Reward
from deft_engine.graders import RewardModelGrader
from deft_engine.plan import Made, Plan, Resolver, Source
from deft_engine.spec_sections import DivergenceSpec, EvaluationSpec, Template
from deft_engine.specs import RewardModelSpec
from deft_engine.stages import Dtype, EvaluateSpec, GenerateSpec, RewardQualitySpec, ScoreSpec


@dataclass(frozen=True, slots=True)
class Answering:
    """Who answers prompts: the input of ``generate``, and the settings that only a loaded model has."""

    inputs: dict[str, Source]
    dtype: Dtype = "auto"
    template: Template = "auto"
    start: Source | None = None
    """What the job trained the model from."""


def plan_evaluation(
    plan: Plan,
    evaluation: EvaluationSpec,
    samples: Made,
    answering: Answering,
    grader_model: Source | None,
    resolver: Resolver,
) -> None:
    """Add the stages ``generate`` and ``evaluate``; ``grader_model`` graded the data, if a model did.

    Raises:
        SpecError: as ``_plan_evaluators``.
    """
    evaluators, inputs = _plan_evaluators(evaluation, answering, resolver)
    warnings = list(plan.warnings)
    judge = inputs.get("reward_model")
    if judge is not None and grader_model is not None and judge.identity == grader_model.identity:
        warnings.append(
            "the reward model that graded the data also evaluates the result (r_eval is r_train); "
            "the reward figures flatter the model: name another evaluation.reward_model"
        )
    generate_spec = GenerateSpec(
        max_new_tokens=evaluation.max_new_tokens,
        max_prompt_length=evaluation.max_prompt_length,
        samples=evaluation.samples,
        seed=evaluation.seed,
        batch_size=evaluation.batch_size,
        dtype=answering.dtype,
        template=answering.template,
    )
    generated = plan.add("generate", generate_spec, {"samples": samples, **answering.inputs})
    inputs["generations"] = Made(generated.fingerprint, "generations.jsonl")
    plan.warnings[:] = warnings
    looks_at_model = "model" in inputs
    evaluate_spec = EvaluateSpec(
        evaluators=evaluators,
        dtype=answering.dtype if looks_at_model else "auto",
        template=answering.template if looks_at_model else "auto",
        warnings=tuple(warnings),
    )
    plan.add("evaluate", evaluate_spec, inputs)


def plan_reward_quality(
    plan: Plan, model: RewardModelSpec, evaluation: EvaluationSpec, samples: Made, resolver: Resolver
) -> None:
    """Add the scores of all responses under a reward model, of a second one where it is named, and what
    they are worth. A dataset that was scored so before is not scored again.

    Raises:
        SpecError: a model cannot be resolved, or a figure is asked for that a reward model has not.
    """
    for name in ("divergence", "perplexity", "distinct_n"):
        if getattr(evaluation, name):
            raise SpecError(
                f"evaluation.{name} is a figure of answers, and a reward model gives none",
                hint=f"leave evaluation.{name} out, or evaluate a policy by model.base",
                pointer=f"/evaluation/{name}",
            )
    inputs: dict[str, Source] = {"samples": samples}
    named = [("scores", model.reward_model, model.revision, "/model/reward_model")]
    if evaluation.reward_model is not None:
        pointer = "/evaluation/reward_model"
        named.append(("other_scores", evaluation.reward_model, evaluation.revision, pointer))
    for role, name, revision, pointer in named:
        source = resolver.model(name, revision, pointer)
        spec = ScoreSpec(grader=RewardModelGrader(model=name).scorer(), responses="all")
        scored = plan.add("score", spec, {"samples": samples, "reward_model": source})
        inputs[role] = Made(scored.fingerprint, "scores.parquet")
    plan.add("reward_quality", RewardQualitySpec(), inputs)


def _plan_evaluators(
    evaluation: EvaluationSpec, answering: Answering, resolver: Resolver
) -> tuple[tuple[Evaluator, ...], dict[str, Source]]:
    """The evaluators asked for, and the models that they look at.

    Raises:
        SpecError: none is asked for, or one needs a model that there is not.
    """
    evaluators: list[Evaluator] = []
    inputs: dict[str, Source] = {}
    if evaluation.reward_model is not None:
        inputs["reward_model"] = resolver.model(
            evaluation.reward_model, evaluation.revision, "/evaluation/reward_model"
        )
        evaluators.append(Reward())
    if evaluation.bleu:
        evaluators.append(Bleu())
    if evaluation.distinct_n:
        evaluators.append(DistinctN())
    if evaluation.divergence is not None:
        inputs["model"] = _loaded(answering, "divergence")
        inputs["reference_model"] = _reference(evaluation.divergence, answering, resolver)
        evaluators.append(Divergence())
    if evaluation.perplexity:
        inputs["model"] = _loaded(answering, "perplexity")
        evaluators.append(Perplexity())
    if not evaluators:
        raise SpecError(
            "evaluation names no figure to compute",
            hint="set evaluation.bleu to true, name evaluation.reward_model, or set evaluation to null",
            pointer="/evaluation",
        )
    return (*evaluators, Length()), inputs


def _loaded(answering: Answering, figure: str) -> Source:
    """The model whose predictions a figure is made of."""
    if "model" not in answering.inputs:
        raise SpecError(
            f"evaluation.{figure} is made of the answering model's predictions, and only a model that is "
            "loaded here shows them",
            hint=f"leave evaluation.{figure} out, or evaluate a model by model.base",
            pointer=f"/evaluation/{figure}",
        )
    return answering.inputs["model"]


def _reference(divergence: DivergenceSpec, answering: Answering, resolver: Resolver) -> Source:
    if divergence.reference is not None:
        pointer = "/evaluation/divergence/reference"
        return resolver.model(divergence.reference, divergence.revision, pointer)
    if answering.start is None:
        raise SpecError(
            "the divergence needs a reference, and this job trains no model that it could start from",
            hint='name the model that the evaluated one was trained from: {"reference": "..."}',
            pointer="/evaluation/divergence/reference",
        )
    return answering.start
