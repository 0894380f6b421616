"""What policies say of responses without being trained: R_dis, and the implicit reward of DPO."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from deft_engine.data.collate import RankedBatch
from deft_engine.distribution import load_qdiff
from deft_engine.distribution_reward import response_rewards
from deft_engine.errors import ModelError
from deft_engine.graders.scoring_context import Rewards, ScoringContext
from deft_engine.heads import output_head
from deft_engine.logps import ranked_logps
from deft_engine.models import device, load_policy, positions
from deft_engine.precision import autocast
from deft_engine.response_scoring import ScoringPass, Tokenising, response_values
from deft_engine.templates import resolve_template
from deft_engine.tokenizer import load_tokenizer, tokenizer_sha256
from deft_engine.types import Samples


def distribution_rewards(samples: Samples, context: ScoringContext) -> Iterator[Rewards]:
    """R_dis (eqs 16, 17) of the needed responses under the input ``model``, with the input ``qdiff``.

    Raises:
        ModelError: the model cannot be used, or Q_diff was counted with another tokenizer.
        Interrupted: asked to stop; the windows that are done are kept.
    """
    uri = context.inputs["model"]
    tokenizer = load_tokenizer(uri)
    found = load_qdiff(Path(context.inputs["qdiff"]), tokenizer_sha256(tokenizer))
    q_diff = torch.from_numpy(found.q_diff).to(device(), torch.float32)
    model = load_policy(uri, "float32").to(device())  # see deft_engine.precision
    limit = min(context.max_length, positions(model))
    template = resolve_template(context.template, uri, tokenizer)

    def compute(batch: RankedBatch) -> Tensor:
        with autocast(context.dtype):
            logps = ranked_logps(model, batch)
        return response_rewards(logps, output_head(model), q_diff, "normalised")

    run = ScoringPass("r_dis", context.events, context.stop, context.work, context.world)
    yield from response_values(
        samples, context.responses, Tokenising(tokenizer, template, limit), compute, run
    )


def implicit_rewards(samples: Samples, context: ScoringContext, beta: float) -> Iterator[Rewards]:
    """beta log(policy(y|x) / reference(y|x)) of the needed responses: the reward inside eq 5.

    The inputs are ``model`` (the policy) and ``reference_model``; one of them is in memory at a time, and
    both see the tokens that the policy's tokenizer and template give.

    Raises:
        ModelError: a model cannot be used, or the two have different tokenizers.
        Interrupted: asked to stop; the windows that are done are kept.
    """
    policy, reference = context.inputs["model"], context.inputs["reference_model"]
    tokenizer = load_tokenizer(policy)
    if tokenizer_sha256(tokenizer) != tokenizer_sha256(load_tokenizer(reference)):
        raise ModelError(
            "the policy and its reference have different tokenizers, so their log-probabilities are of "
            "different things",
            hint="name in deft.grader.reference the model that the policy was trained from",
        )
    how = Tokenising(tokenizer, resolve_template("auto", policy, tokenizer), context.max_length)
    of_policy = list(_logps(policy, samples, context, how, number=0))
    for ours, theirs in zip(of_policy, _logps(reference, samples, context, how, number=1), strict=True):
        yield [
            None if logp is None or base is None else beta * (logp - base)
            for logp, base in zip(ours, theirs, strict=True)
        ]


def _logps(
    uri: str, samples: Samples, context: ScoringContext, how: Tokenising, number: int
) -> Iterator[Rewards]:
    """Log-probabilities of the needed responses under one of the two models."""
    model = load_policy(uri, "float32").to(device())  # see deft_engine.precision

    def compute(batch: RankedBatch) -> Tensor:
        with autocast(context.dtype):
            return ranked_logps(model, batch).policy

    run = ScoringPass(
        f"logps-{number}", context.events, context.stop, context.work, context.world, number, passes=2
    )
    yield from response_values(samples, context.responses, how, compute, run)
