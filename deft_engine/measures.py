"""What models say of answers, for the evaluators that need it: each measure is computed once for them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from deft_engine.data.collate import RankedBatch
from deft_engine.divergence import ranked_divergences
from deft_engine.errors import ModelError
from deft_engine.evaluators import Measure, TokenSum
from deft_engine.logps import ranked_logps
from deft_engine.models import device, load_policy, positions
from deft_engine.precision import autocast
from deft_engine.response_scoring import ScoringPass, Tokenising, response_values
from deft_engine.reward_scoring import score_samples
from deft_engine.run import StageContext
from deft_engine.stages import EvaluateSpec
from deft_engine.templates import resolve_template
from deft_engine.tokenizer import load_tokenizer, tokenizer_sha256
from deft_engine.types import Generation, Response, Sample

MAX_LENGTH = 1024
"""Tokens of prompt and answer that a reward model sees, as in ``ScoreSpec``."""
Measured = Sequence[float] | Sequence[TokenSum]


def rewards(context: StageContext[EvaluateSpec], generations: Sequence[Generation]) -> list[float]:
    """r_eval(x, y) of every generation under the input ``reward_model``."""
    scored = score_samples(
        _input(context, "reward_model", "name one in evaluation.reward_model"),
        _samples(generations, (g.response for g in generations)),
        responses="all",
        max_length=MAX_LENGTH,
        dtype="auto",
        events=context.events,
        stop=context.stop,
        work=context.work,
    )
    return [reward for (reward,) in scored if reward is not None]


def divergences(context: StageContext[EvaluateSpec], generations: Sequence[Generation]) -> list[TokenSum]:
    """KL(policy || reference) over the tokens of every generation; both models are in memory.

    Raises:
        ModelError: a model cannot be used, or the two have different tokenizers.
    """
    uri = _input(context, "model", "evaluate a model that is loaded")
    reference_uri = _input(context, "reference_model", "name one in evaluation.divergence.reference")
    if tokenizer_sha256(load_tokenizer(uri)) != tokenizer_sha256(load_tokenizer(reference_uri)):
        raise ModelError(
            "the policy and its reference have different tokenizers, so they predict different things",
            hint="name in evaluation.divergence.reference the model that the policy was trained from",
        )
    policy, reference = (load_policy(each, "float32").to(device()) for each in (uri, reference_uri))
    limit = min(MAX_LENGTH, positions(policy), positions(reference))

    def compute(batch: RankedBatch) -> Tensor:
        return ranked_divergences(policy, reference, batch)

    samples = _samples(generations, (g.response for g in generations))
    return _token_sums(context, "divergence", samples, _tokenising(context, uri, limit), compute)


def reference_logps(context: StageContext[EvaluateSpec], generations: Sequence[Generation]) -> list[TokenSum]:
    """Log-probability of every annotated best response under the input ``model``."""
    uri = _input(context, "model", "evaluate a model that is loaded")
    model = load_policy(uri, "float32").to(device())  # see deft_engine.precision

    def compute(batch: RankedBatch) -> Tensor:
        return ranked_logps(model, batch).policy

    samples = _samples(generations, (g.reference for g in generations))
    how = _tokenising(context, uri, min(MAX_LENGTH, positions(model)))
    return _token_sums(context, "reference-logps", samples, how, compute)


MEASURES: dict[Measure, Callable[[StageContext[EvaluateSpec], Sequence[Generation]], Measured]] = {
    "reward": rewards,
    "divergence": divergences,
    "reference_logp": reference_logps,
}
"""How each measure is computed."""


def _token_sums(
    context: StageContext[EvaluateSpec],
    name: str,
    samples: Sequence[Sample],
    how: Tokenising,
    compute: Callable[[RankedBatch], Tensor],
) -> list[TokenSum]:
    """A sum over the tokens of each sample's one response.

    Raises:
        ModelError: a model's predictions are not finite.
    """

    def computed(batch: RankedBatch) -> Tensor:
        with autocast(context.spec.dtype):
            values = compute(batch)
        if not bool(torch.isfinite(values).all()):
            raise ModelError(
                "the model's predictions are not finite", hint="look at the losses of its training"
            )
        return values

    run = ScoringPass(name, context.events, context.stop, context.work)
    values = response_values(samples, "all", how, computed, run)
    tokenizer = f"tokenizer:{tokenizer_sha256(how.tokenizer)[:8]}|template:{how.template}"
    return [
        TokenSum(total, len(how.parts(sample, [0])[0].responses[0]), tokenizer)
        for sample, (total,) in zip(samples, values, strict=True)
        if total is not None
    ]


def _tokenising(context: StageContext[EvaluateSpec], uri: str, limit: int) -> Tokenising:
    tokenizer = load_tokenizer(uri)
    return Tokenising(tokenizer, resolve_template(context.spec.template, uri, tokenizer), limit)


def _samples(generations: Sequence[Generation], texts: Iterable[str]) -> list[Sample]:
    pairs = zip(generations, texts, strict=True)
    return [Sample(g.sample_id, g.subset, g.prompt, (Response(text),)) for g, text in pairs]


def _input(context: StageContext[EvaluateSpec], name: str, hint: str) -> str:
    if name not in context.inputs:
        raise ModelError(f"the {name.replace('_', ' ')} is missing", hint=hint)
    return context.inputs[name]
