"""The one path to log-probabilities and rewards: training, reference and scoring all come through here.

A batch is one packed row (``data.collate``), every prompt in it once; ``hidden_states`` says which models see
it so. The language model head sees only the
places that predict a response token, a chunk at a time, and a chunk's logits are computed again in the
backward pass: no tensor of all tokens by the vocabulary is ever alive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from deft_engine.data.collate import RankedBatch
from deft_engine.errors import ModelError
from deft_engine.heads import head_rows, output_head
from deft_engine.hidden_states import end_states, predictor_states
from deft_engine.models import core_model

CHUNK_ELEMENTS = 2**23
"""Logits that are alive at a time (32 MB in float32)."""


@dataclass(frozen=True, slots=True)
class RankedLogps:
    """What a loss and the distribution reward need of a batch. float32 at least, under autograd."""

    policy: Tensor  # [batch, ranks]: sum of log-probabilities of the response, EOS included; 0 where masked
    lengths: Tensor  # [batch, ranks] int64: its tokens, the T of eq 16
    mask: Tensor  # [batch, ranks] bool
    hidden: Tensor  # [targets, hidden]: the states that feed the head, in the model's dtype
    cells: Tensor  # [targets] int64: row-major index of each state's response in [batch, ranks]
    reference: Tensor | None = None  # [batch, ranks]: ``policy`` of the initial model
    rewards: Tensor | None = None  # [batch, ranks]: what the responses were ranked by

    def with_reference(self, reference: Tensor) -> RankedLogps:
        """The same with the initial model's log-probabilities ``[batch, ranks]``; 0 where masked."""
        return replace(self, reference=reference.to(self.policy))

    def with_rewards(self, rewards: Tensor) -> RankedLogps:
        """The same with the responses' rewards ``[batch, ranks]``; 0 where masked."""
        return replace(self, rewards=rewards.to(self.policy))

    @property
    def scores(self) -> Tensor:
        """``[batch, ranks]``: log-probability per token of the response, the s_j of eq 7; 0 where masked."""
        return self.policy / self.lengths.clamp(min=1)

    @property
    def hidden_sum(self) -> Tensor:
        """``[batch, ranks, hidden]``: the sum of a response's states, in the dtype of ``policy``."""
        return sum_by_response(self.hidden.to(self.policy.dtype), self.cells, self.policy.shape)


def ranked_logps(model: PreTrainedModel, batch: RankedBatch) -> RankedLogps:
    """Log-probabilities of every response under a causal language model (eqs 6, 7 and 9 are made of them).

    Args:
        model: A policy, or its LoRA wrapping; any floating dtype, on the batch's device.

    Raises:
        ModelError: the logits are not a known function of the hidden states.
        DataError: a sequence has more tokens than the model has positions.
    """
    core = core_model(model)
    hidden = predictor_states(core, batch)  # [targets, hidden]
    token_logps = _target_logps(hidden, batch.target_ids, output_head(core))  # [targets]
    return RankedLogps(
        policy=sum_by_response(token_logps, batch.cells, batch.lengths.shape),
        lengths=batch.lengths,
        mask=batch.mask,
        hidden=hidden,
        cells=batch.cells,
    )


def ranked_rewards(reward_model: PreTrainedModel, batch: RankedBatch) -> Tensor:
    """Rewards r(x, y) ``[batch, ranks]``: the score head at each response's EOS; 0 where masked.

    Raises:
        ModelError: the model has no score head.
        DataError: a sequence has more tokens than the model has positions.
    """
    core = core_model(reward_model)
    head = getattr(core, "score", None)
    if head is None:
        raise ModelError(
            f"{type(core).__name__} has no score head, so it is no reward model",
            hint="train one with a job of kind reward_model, or name a sequence-classification model",
        )
    return _score(head, end_states(core, batch)).masked_fill(~batch.mask, 0.0)


def sum_by_response(values: Tensor, cells: Tensor, shape: torch.Size) -> Tensor:
    """Sum ``values [targets, ...]`` into ``[batch, ranks, ...]`` by each target's response."""
    flat = values.new_zeros(shape.numel(), *values.shape[1:])
    return flat.index_add(0, cells, values).view(*shape, *values.shape[1:])


def chunk_rows(vocabulary: int) -> int:
    """Rows of logits that may be alive at a time."""
    return max(1, CHUNK_ELEMENTS // vocabulary)


def _target_logps(hidden: Tensor, target_ids: Tensor, head: nn.Module) -> Tensor:
    """``[targets]``: log-probability of each target, float32 at least."""
    rows = chunk_rows(head_rows(head))
    chunks = zip(torch.split(hidden, rows), torch.split(target_ids, rows), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([_chunk_logps(states, ids, head) for states, ids in chunks])
    return torch.cat(
        [
            checkpoint(_chunk_logps, states, ids, head, use_reentrant=False, preserve_rng_state=False)
            for states, ids in chunks
        ]
    )


def _chunk_logps(hidden: Tensor, target_ids: Tensor, head: nn.Module) -> Tensor:
    # Not log_softmax: in float32 over a large vocabulary its errors have one sign. With SmolLM2 a sum over
    # 310 tokens was off by 2.0e-3 where this was off by 2.3e-5 (against float64).
    logits = _at_least_float32(head(hidden))  # [rows, vocab]
    return logits.gather(1, target_ids[:, None]).squeeze(1) - logits.logsumexp(dim=-1)


def _score(head: nn.Module, states: Tensor) -> Tensor:
    """``[batch, ranks]`` from ``[batch, ranks, hidden]`` in float32 at least: bfloat16 would make ties."""
    states = _at_least_float32(states)
    with torch.autocast(states.device.type, enabled=False):
        rewards = states @ cast(Tensor, head.weight).to(states.dtype)[0]
        return rewards if head.bias is None else rewards + cast(Tensor, head.bias).to(states.dtype)[0]


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
