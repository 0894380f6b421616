"""Attention over a packed row: every response sees its own prompt and itself, nothing else.

A function registered in transformers' ``AttentionInterface``, so no model is rewritten. It gets the batch's
layout as the keyword ``packed_layout``, which the models hand down to their attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from deft_engine.attention_by_products import attention_by_products
from deft_engine.data.collate import Segments

IMPLEMENTATION = "deft_packed"


class CannotPack(Exception):
    """The model's attention does something that the packed layout does not have."""


@dataclass(slots=True)
class PackedLayout:
    """The segments of a packed row; for each response they tell which keys its tokens see."""

    segments: tuple[Segments, ...]
    layers: int = 0
    """Layers that attended by it in this forward pass."""
    _masks: tuple[tuple[Tensor, ...], ...] | None = None

    def masks(self, device: torch.device) -> tuple[tuple[Tensor, ...], ...]:
        """Per sample and response ``[response, prompt + response]`` bool, which all layers share."""
        if self._masks is None:
            self._masks = tuple(
                tuple(_continuation_mask(segment.prompt, length, device) for length in segment.responses)
                for segment in self.segments
            )
        return self._masks


@contextmanager
def attending_by(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Within it, ``model`` attends by a function of transformers' ``AttentionInterface``."""
    before = model.config._attn_implementation
    model.config._attn_implementation = implementation
    try:
        yield
    finally:
        model.config._attn_implementation = before


def packed_attention(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Within it, ``model`` attends by ``packed_layout``; generation and plain forwards are for outside."""
    return attending_by(model, IMPLEMENTATION)


def attends_packed(model: PreTrainedModel) -> bool:
    """Whether ``model`` is within ``packed_attention``."""
    return bool(model.config._attn_implementation == IMPLEMENTATION)


def packed_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed_layout: PackedLayout,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer.

    Args:
        query: ``[1, heads, tokens, head_dim]``
        key: ``[1, key_value_heads, tokens, head_dim]``, as ``value``.
        attention_mask: Always None: the layout says who sees whom.
        packed_layout: Of the row; its segments cover it.
        softcap, s_aux: Capped scores (Gemma 2) and sinks (gpt-oss), which have no kernel here.

    Returns:
        ``[1, tokens, heads, head_dim]``, and no weights.

    Raises:
        CannotPack: the attention is of another form.
    """
    if softcap is not None or s_aux is not None:
        raise CannotPack("capped attention scores, or attention sinks")
    packed_layout.layers += 1
    if query.device.type == "cpu" and dropout == 0:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return attention_by_products(query[0], key[0], value[0], packed_layout.segments, scale)[None], None
    return attention_by_kernel(query, key, value, packed_layout, scaling, dropout), None


def attention_by_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packed_layout: PackedLayout,
    scaling: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """``[1, tokens, heads, head_dim]``: ``scaled_dot_product_attention``, called for each response."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    outputs: list[Tensor] = []
    for segment, masks in zip(packed_layout.segments, packed_layout.masks(query.device), strict=True):
        size = [segment.prompt, *segment.responses]
        stop = segment.start + sum(size)
        queries, keys, values = (
            torch.split(tensor[:, :, segment.start : stop], size, dim=2) for tensor in (query, key, value)
        )
        outputs.append(
            scaled_dot_product_attention(
                queries[0], keys[0], values[0], dropout_p=dropout, is_causal=True, scale=scaling
            )
        )
        for q, k, v, mask in zip(queries[1:], keys[1:], values[1:], masks, strict=True):
            seen_keys, seen_values = torch.cat((keys[0], k), dim=2), torch.cat((values[0], v), dim=2)
            outputs.append(
                scaled_dot_product_attention(
                    q, seen_keys, seen_values, attn_mask=mask, dropout_p=dropout, scale=scaling
                )
            )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


def _continuation_mask(prompt: int, response: int, device: torch.device) -> Tensor:
    """Token i of the response sees the whole prompt and the response up to i."""
    full = torch.ones(response, prompt + response, dtype=torch.bool, device=device)
    return full.tril(diagonal=prompt)


AttentionInterface.register(IMPLEMENTATION, packed_attention_forward)
