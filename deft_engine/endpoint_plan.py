"""The stages of jobs that let an endpoint write or judge: ``augment`` and ``judge``."""

from __future__ import annotations

from deft_engine.endpoints.spec import EndpointModel
from deft_engine.plan import Made, Plan, Resolver, Source
from deft_engine.spec_sections import ModelSpec
from deft_engine.specs import AugmentJob, JudgeJob
from deft_engine.stages import AnswerLocallySpec, AnswerSpec, AugmentSpec, JudgeSpec

_QUESTIONS_AT_A_TIME = 16  # of MT-Bench, decoded together
_LONGEST_CONVERSATION = 4_096  # tokens before an answer; less where the model has fewer positions


def plan_augmenting(plan: Plan, spec: AugmentJob, samples: Made, resolver: Resolver) -> None:
    """The stage that lets an endpoint add to the samples.

    Raises:
        SpecError: the endpoint is not allowed.
    """
    augment_spec = AugmentSpec(
        mode=spec.mode,
        place=spec.place,
        max_new_tokens=spec.max_new_tokens,
        temperature=spec.temperature,
        samples=spec.samples,
        seed=spec.seed,
    )
    endpoint = resolver.endpoint(spec.endpoint, "/endpoint")
    plan.add("augment", augment_spec, {"samples": samples, "endpoint": endpoint})


def plan_judging(plan: Plan, spec: JudgeJob, resolver: Resolver) -> None:
    """MT-Bench: a model answers, unless its answers are given, and the judge's endpoint grades or compares.

    Raises:
        SpecError: a file, model or endpoint cannot be resolved.
    """
    questions = resolver.file(spec.questions, "/questions")
    inputs: dict[str, Source] = {"questions": questions, "endpoint": resolver.endpoint(spec.judge, "/judge")}
    named = {"answers": spec.answers, "against": spec.against, "references": spec.references}
    inputs |= {role: resolver.file(name, f"/{role}") for role, name in named.items() if name is not None}
    if spec.model is not None:
        inputs["answers"] = _plan_answering(plan, spec, spec.model, questions, resolver)
    plan.add("judge", JudgeSpec(max_new_tokens=spec.judge_max_tokens), inputs)


def _plan_answering(
    plan: Plan, spec: JudgeJob, model: ModelSpec | EndpointModel, questions: Source, resolver: Resolver
) -> Made:
    if isinstance(model, EndpointModel):
        endpoint = resolver.endpoint(model.endpoint, "/model/endpoint")
        asked = AnswerSpec(max_new_tokens=spec.max_new_tokens, seed=spec.seed)
        planned = plan.add("answer", asked, {"questions": questions, "endpoint": endpoint})
    else:
        answering = AnswerLocallySpec(
            max_new_tokens=spec.max_new_tokens,
            max_prompt_length=_LONGEST_CONVERSATION,
            batch_size=_QUESTIONS_AT_A_TIME,
            dtype=model.dtype,
            template=model.template,
            model_id=model.base,
        )
        source = resolver.model(model.base, model.revision, "/model/base")
        planned = plan.add("answer_locally", answering, {"questions": questions, "model": source})
    return Made(planned.fingerprint, "answers.jsonl")
