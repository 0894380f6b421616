"""KL(policy || reference) of next-token predictions, by the one path to log-probabilities.

Both models see a batch as training shows it to them (``logps``). Of the predictions a chunk is alive at a
time: never a tensor of all tokens by the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from deft_engine.data.collate import RankedBatch
from deft_engine.errors import ModelError
from deft_engine.heads import head_rows, output_head
from deft_engine.logps import chunk_rows, ranked_logps, sum_by_response


def ranked_divergences(policy: PreTrainedModel, reference: PreTrainedModel, batch: RankedBatch) -> Tensor:
    """``[batch, ranks]``: KL(policy || reference) over each response's tokens, in nats; 0 where masked.

    Without gradients.

    Raises:
        ModelError: the models predict over vocabularies of different sizes.
        DataError: a sequence has more tokens than a model has positions.
    """
    ours, theirs = output_head(policy), output_head(reference)
    if head_rows(ours) != head_rows(theirs):
        raise ModelError(
            f"the policy predicts {head_rows(ours)} tokens and its reference {head_rows(theirs)}",
            hint="name in evaluation.divergence.reference the model that the policy was trained from",
        )
    moved, start = ranked_logps(policy, batch), ranked_logps(reference, batch)
    tokens = token_divergences(moved.hidden, start.hidden, ours, theirs)
    return sum_by_response(tokens, batch.cells, batch.lengths.shape)


def token_divergences(
    hidden: Tensor, reference: Tensor, head: nn.Module, reference_head: nn.Module
) -> Tensor:
    """``[targets]`` from the states ``[targets, hidden]`` that feed the two heads; float32 at least."""
    rows = chunk_rows(head_rows(head))
    chunks = zip(torch.split(hidden, rows), torch.split(reference, rows), strict=True)
    return torch.cat([_chunk(head(ours), reference_head(theirs)) for ours, theirs in chunks])


def _chunk(logits: Tensor, reference: Tensor) -> Tensor:
    """KL of each row: the sum over v of p_v (z_v - z'_v), less the difference of the two normalisers."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    logits, reference = logits.to(wide), reference.to(wide)  # [rows, vocab]
    normaliser = logits.logsumexp(dim=-1, keepdim=True)
    difference = logits - normaliser - (reference - reference.logsumexp(dim=-1, keepdim=True))
    return (difference * (logits - normaliser).exp()).sum(dim=-1)
