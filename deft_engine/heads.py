"""From hidden states to logits: the head of a language model, and what some models do behind it.

Gemma 2 caps its logits (``cap * tanh(z / cap)``), Cohere and Granite scale them. Every head is compared once
with the model's own logits; a model that does something else behind its head is refused, since all its
log-probabilities would be wrong.
"""

from __future__ import annotations

from typing import cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from deft_engine.errors import ModelError
from deft_engine.models import as_it_computes, core_model

_PROBE_TOKENS = 6
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


class ChangedHead(nn.Module):
    """A linear head whose logits are scaled and then capped."""

    def __init__(self, linear: nn.Module, scale: float, cap: float | None) -> None:
        super().__init__()
        self.linear, self.scale, self.cap = linear, scale, cap

    @property
    def weight(self) -> Tensor:
        """The linear layer's, ``[vocab, hidden]``."""
        return cast(Tensor, self.linear.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[..., vocab]`` from ``[..., hidden]``."""
        logits: Tensor = self.linear(hidden) * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


_known: WeakKeyDictionary[PreTrainedModel, nn.Module] = WeakKeyDictionary()


def output_head(model: PreTrainedModel) -> nn.Module:
    """The head that turns a language model's hidden states into its logits.

    Raises:
        ModelError: there is none, or the model does something unknown behind it.
    """
    core = core_model(model)
    if core not in _known:
        _known[core] = _checked(core)
    return _known[core]


def head_rows(head: nn.Module) -> int:
    """Rows of a head's weight: the vocabulary, sometimes padded beyond the tokenizer's."""
    return cast(Tensor, head.weight).shape[0]


def _checked(core: PreTrainedModel) -> nn.Module:
    config = core.config.get_text_config()
    linear = core.get_output_embeddings()
    if linear is None:
        raise ModelError(f"{type(core).__name__} has no language model head", hint="name a language model")
    scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    head = linear if scale == 1.0 and cap is None else ChangedHead(linear, scale, cap)
    ids = torch.arange(3, 3 + _PROBE_TOKENS, device=linear.weight.device)[None] % linear.weight.shape[0]
    with as_it_computes(core):
        ours = head(core.base_model(input_ids=ids, use_cache=False).last_hidden_state).float()
        theirs = core(input_ids=ids, use_cache=False).logits.float()
    largest = max(float(theirs.abs().max()), 1e-6)
    if (
        ours.shape != theirs.shape
        or float((ours - theirs).abs().max()) > largest * _TOLERANCE[linear.weight.dtype]
    ):
        raise ModelError(
            f"the logits of {type(core).__name__} are not its head's: it does something behind the head that "
            "is not known here",
            hint="name another model; of what follows a head, scaling and soft capping are known",
        )
    return head
