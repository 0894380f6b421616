"""The distribution reward R_dis (eqs 16-17) and its share of the gradient.

Q_diff sums to zero, so the softmax's normaliser cancels and no vocabulary-sized tensor is needed::

    R_dis = 1/T sum_t Q_diff . log softmax(W h_t + b)        eqs 16, 17
          = (W^T Q_diff) . mean_t h_t + b . Q_diff           since sum_i Q_diff(i) = 0

Raw counts (``scale: counts``) sum to something else, so for them the definition is computed, in chunks.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deft_engine.errors import ModelError
from deft_engine.heads import head_rows
from deft_engine.logps import RankedLogps, chunk_rows, sum_by_response
from deft_engine.spec_sections import Scale
from deft_engine.world import ALONE, World


def response_rewards(logps: RankedLogps, head: nn.Module, q_diff: Tensor, scale: Scale) -> Tensor:
    """R_dis of every response ``[batch, ranks]``; 0 where masked. Under autograd.

    By the identity where Q_diff is normalised and the head a plain linear layer, else (LoRA on the head, raw
    counts) by the definition.

    Args:
        q_diff: ``[vocab of the tokenizer]``, summing to 0 if normalised; a head with more rows gives them
            weight 0.

    Raises:
        ModelError: the head has fewer rows than the tokenizer has tokens.
    """
    rows = head_rows(head)
    if rows < q_diff.shape[0]:
        raise ModelError(
            f"Q_diff has {q_diff.shape[0]} tokens, the model's head only {rows}",
            hint="model and tokenizer do not belong together; use the tokenizer that came with the model",
        )
    weights = torch.zeros(rows, dtype=logps.policy.dtype, device=logps.policy.device)
    weights[: q_diff.shape[0]] = q_diff.to(weights)
    if scale == "normalised" and type(head) is nn.Linear:
        with torch.autocast(weights.device.type, enabled=False):
            return _by_identity(logps, head, weights)
    return _by_definition(logps, head, weights)


def sample_rewards(
    logps: RankedLogps, head: nn.Module, q_diff: Tensor, scale: Scale, on: Literal["chosen", "all"]
) -> Tensor:
    """R_dis of every sample ``[batch]``: of y_1 (rank 0), or the mean over its responses."""
    rewards = response_rewards(logps, head, q_diff, scale)
    return rewards[:, 0] if on == "chosen" else rewards.sum(dim=1) / logps.mask.sum(dim=1)


def gradient_share(
    logps: RankedLogps, base_loss: Tensor, r_dis: Tensor, world: World = ALONE, weight: float = 1.0
) -> float:
    """Norm of R_dis's gradient over that of the base loss's, both at the states that feed the head.

    With ``omega`` the term's share is ``omega`` times this. Costs a backward pass through the head alone;
    the graph stays usable.

    Args:
        base_loss: Scalar, the base method's loss, summed over the batch.
        r_dis: Scalar, the distribution reward, summed over the batch.
        world: The processes that have a part of the batch each; all of them ask at once.
        weight: 0 for a part that does not count.
    """
    gradients = (
        torch.autograd.grad(value, logps.hidden, retain_graph=True)[0] for value in (r_dis, base_loss)
    )
    term, base = world.sums([weight * float(gradient.double().square().sum()) for gradient in gradients])
    return math.sqrt(term / base) if base else math.inf


def _by_identity(logps: RankedLogps, head: nn.Linear, q_diff: Tensor) -> Tensor:
    direction = q_diff @ head.weight.to(q_diff.dtype)  # [hidden]: W^T Q_diff
    sums = logps.hidden_sum @ direction  # [batch, ranks]
    rewards = sums / logps.lengths.clamp(min=1)
    if head.bias is not None:
        rewards = rewards + q_diff @ head.bias.to(q_diff.dtype)
    return rewards.masked_fill(~logps.mask, 0.0)


def _by_definition(logps: RankedLogps, head: nn.Module, q_diff: Tensor) -> Tensor:
    def chunk(hidden: Tensor) -> Tensor:
        log_probabilities = torch.log_softmax(head(hidden).to(q_diff.dtype), dim=-1)  # [rows, vocab]
        return (log_probabilities * q_diff).sum(dim=-1)

    rows = chunk_rows(q_diff.shape[0])
    per_token = torch.cat(
        [
            checkpoint(chunk, states, use_reentrant=False, preserve_rng_state=False)
            for states in torch.split(logps.hidden, rows)
        ]
    )
    sums = sum_by_response(per_token, logps.cells, logps.policy.shape)
    return sums / logps.lengths.clamp(min=1)
