"""Attention of a decoding step: answers under way by one token each, new prompts whole, in one packed row.

A function registered in transformers' ``AttentionInterface``, as in ``packed_attention``. It keeps keys and
values itself, so a model is called without a cache of its own, and no sequence is padded.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from deft_engine.attention_by_products import attention_by_products
from deft_engine.data.collate import Segments
from deft_engine.matrix_products import multiplied_by
from deft_engine.packed_attention import CannotPack, attending_by

IMPLEMENTATION = "deft_slots"


class SlotCache:
    """Keys and values of up to ``slots`` sequences, each from the start of its own row.

    Rows ``0 ... n - 1`` are in use; whoever ends one moves the last row into its place.
    """

    def __init__(self, slots: int, capacity: int) -> None:
        """Make room for so many sequences of ``capacity`` tokens; memory is taken as they come."""
        self._slots, self._capacity = slots, capacity
        self._layers: list[tuple[Tensor, Tensor]] = []  # each [slots, key_value_heads, capacity, head_dim]

    def layer(self, number: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, made like its first ``key`` and ``value [1, heads, tokens, dim]``."""
        if number == len(self._layers):
            shapes = [(self._slots, new.shape[1], self._capacity, new.shape[3]) for new in (key, value)]
            # zeros, since what is not seen has weight 0, and 0 times NaN is NaN
            self._layers.append((key.new_zeros(shapes[0]), value.new_zeros(shapes[1])))
        return self._layers[number]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` tokens of a row into another."""
        for tensors in self._layers:
            for tensor in tensors:
                tensor[target, :, :length] = tensor[source, :, :length]


@dataclass(slots=True)
class DecodingStep:
    """What a packed row holds: a token of each of the cache's first rows, then whole rows behind them."""

    cache: SlotCache
    places: Tensor  # [running] int64: the token's place in its sequence
    seen: Tensor  # [running, 1, 1, longest]: 0 for a key that its token sees, else -inf
    prompts: tuple[int, ...]  # tokens of each sequence that begins
    layers: int = 0
    """Layers that attended by it in this forward pass."""

    @staticmethod
    def of(cache: SlotCache, places: list[int], prompts: tuple[int, ...], like: Tensor) -> DecodingStep:
        """The step with the mask that all layers share, of the dtype and on the device of ``like``."""
        where = torch.tensor(places, dtype=torch.int64, device=like.device)
        keys = torch.arange(max(places, default=-1) + 1, device=like.device)
        unseen = (keys > where[:, None])[:, None, None]
        seen = torch.zeros(unseen.shape, dtype=like.dtype, device=like.device)
        return DecodingStep(cache, where, seen.masked_fill_(unseen, -torch.inf), prompts)


def slot_attention(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Within it, ``model`` attends by ``decoding_step``."""
    return attending_by(model, IMPLEMENTATION)


def slot_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    decoding_step: DecodingStep,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer; its new keys and values are kept.

    Args:
        query: ``[1, heads, tokens, head_dim]``
        key: ``[1, key_value_heads, tokens, head_dim]``, as ``value``.
        attention_mask: Always None: the step says who sees whom.
        softcap, s_aux: Capped scores (Gemma 2) and sinks (gpt-oss), which have no kernel here.

    Returns:
        ``[1, tokens, heads, head_dim]``, and no weights.

    Raises:
        CannotPack: the attention is of another form.
    """
    if softcap is not None or s_aux is not None:
        raise CannotPack("capped attention scores, or attention sinks")
    keys, values = decoding_step.cache.layer(decoding_step.layers, key, value)
    decoding_step.layers += 1
    running = decoding_step.places.shape[0]
    outputs = []
    if running:
        rows = torch.arange(running, device=query.device)
        keys[rows, :, decoding_step.places] = key[0, :, :running].transpose(0, 1)
        values[rows, :, decoding_step.places] = value[0, :, :running].transpose(0, 1)
        outputs.append(_next_tokens(query[:, :, :running], keys, values, decoding_step.seen, scaling))
    start = running
    for row, length in enumerate(decoding_step.prompts, start=running):
        stop = start + length
        q, k, v = (tensor[:, :, start:stop] for tensor in (query, key, value))
        keys[row, :, :length], values[row, :, :length] = k[0], v[0]
        outputs.append(_whole(q, k, v, scaling))
        start = stop
    return torch.cat(outputs, dim=1), None


def _whole(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """``[1, tokens, heads, head_dim]`` of a sequence that begins."""
    if query.device.type == "cpu":
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return attention_by_products(query[0], key[0], value[0], (Segments(0, query.shape[2], ()),), scale)[
            None
        ]
    shared = _shared(key, value, query)
    return scaled_dot_product_attention(query, *shared, is_causal=True, scale=scaling).transpose(1, 2)


def _next_tokens(query: Tensor, keys: Tensor, values: Tensor, seen: Tensor, scaling: float | None) -> Tensor:
    """``[1, running, heads, head_dim]``. Heads that share keys are queries of one head: nothing is copied."""
    _, heads, running, _ = query.shape
    longest, shared = seen.shape[-1], keys.shape[1]
    grouped = query[0].transpose(0, 1).reshape(running, shared, heads // shared, -1)
    # torch's kernel for CPUs is made for its own library of products, and slower by the other (decision 98)
    with multiplied_by("shipped") if query.device.type == "cpu" else nullcontext():
        attended = scaled_dot_product_attention(
            grouped,  # [running, key_value_heads, heads of each, head_dim]
            keys[:running, :, :longest],
            values[:running, :, :longest],
            attn_mask=seen,
            scale=scaling,
        )
    return attended.flatten(1, 2)[None]


def _shared(key: Tensor, value: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values for as many heads as the query has."""
    groups = query.shape[1] // key.shape[1]
    if groups == 1:
        return key, value
    return key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)


AttentionInterface.register(IMPLEMENTATION, slot_attention_forward)
