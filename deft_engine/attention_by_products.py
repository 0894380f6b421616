"""Attention over a packed row as matrix products, for CPUs.

The kernels of torch's ``scaled_dot_product_attention`` for CPUs do their own small products; those of the
library of matrix products are two to three times as fast on the same cores (decision 98). Queries pass in
blocks, and a block meets only the keys that it can see: scores above the diagonal are computed within a block
alone. Weights are computed again in the backward pass, so memory grows with the tokens and not their square.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from deft_engine.data.collate import Segments

_ROWS = 128  # queries of a block


@dataclass(frozen=True, slots=True)
class QueryBlock:
    """Queries that follow one another, and what they see: the shared keys, then own ones up to themselves."""

    queries: slice
    shared: slice
    own: slice
    """It ends where ``queries`` ends: of its last keys a query sees those up to itself."""

    def seen(self, tensor: Tensor) -> Tensor:
        """``[heads, seen, dim]`` of ``[heads, tokens, dim]``."""
        if self.shared.stop == self.own.start:
            return tensor[:, self.shared.start : self.own.stop]
        return torch.cat((tensor[:, self.shared], tensor[:, self.own]), dim=1)

    def add_seen(self, total: Tensor, part: Tensor) -> None:
        """Add ``part [heads, seen, dim]`` where ``seen`` took it from."""
        shared = self.shared.stop - self.shared.start
        total[:, self.shared] += part[:, :shared]
        total[:, self.own] += part[:, shared:]


def query_blocks(segments: Sequence[Segments]) -> Iterator[QueryBlock]:
    """All queries of a packed row: a prompt sees itself, a response its prompt and itself."""
    for segment in segments:
        prompt = slice(segment.start, segment.start + segment.prompt)
        yield from _blocks(slice(prompt.start, prompt.start), prompt)
        start = prompt.stop
        for length in segment.responses:
            yield from _blocks(prompt, slice(start, start + length))
            start += length


def _blocks(shared: slice, own: slice) -> Iterator[QueryBlock]:
    for start in range(own.start, own.stop, _ROWS):
        stop = min(start + _ROWS, own.stop)
        yield QueryBlock(slice(start, stop), shared, slice(own.start, stop))


def attention_by_products(
    query: Tensor, key: Tensor, value: Tensor, segments: Sequence[Segments], scale: float
) -> Tensor:
    """Attention of one layer over a packed row, differentiable once.

    Args:
        query: ``[heads, tokens, dim]``
        key: ``[key_value_heads, tokens, dim]``; each serves several heads that follow one another.
        value: ``[key_value_heads, tokens, value_dim]``
        segments: Of the row; they cover it.
        scale: Of the scores.

    Returns:
        ``[tokens, heads, value_dim]``
    """
    if torch.is_autocast_enabled(query.device.type):
        lower = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(lower), key.to(lower), value.to(lower)
    return cast(Tensor, cast(Any, _Attention).apply(query, key, value, tuple(segments), scale))


class _Attention(Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, segments: tuple[Segments, ...], scale: float
    ) -> Tensor:
        ctx.segments, ctx.scale = segments, scale
        ctx.save_for_backward(query, key, value)
        heads, tokens, _ = query.shape
        attended = query.new_empty(tokens, heads, value.shape[2])
        for block in query_blocks(segments):
            weights = _weights(_grouped(query[:, block.queries], key) * scale, block.seen(key), block)
            found = torch.bmm(weights, block.seen(value))
            attended[block.queries] = found.view(heads, -1, value.shape[2]).transpose(0, 1)
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        grad = grads[0].transpose(0, 1)  # [heads, tokens, value_dim]
        of_query, of_key, of_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for block in query_blocks(ctx.segments):
            scaled = _grouped(query[:, block.queries], key) * ctx.scale
            seen = block.seen(key)
            weights = _weights(scaled, seen, block)
            of_block = _grouped(grad[:, block.queries], key)
            block.add_seen(of_value, torch.bmm(weights.transpose(1, 2), of_block))
            of_weights = torch.bmm(of_block, block.seen(value).transpose(1, 2))
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            block.add_seen(of_key, torch.bmm(of_scores.transpose(1, 2), scaled))
            found = torch.bmm(of_scores, seen).mul_(ctx.scale)
            of_query[:, block.queries] = found.view(query.shape[0], -1, query.shape[2])
        return of_query, of_key, of_value, None, None


def _grouped(rows: Tensor, key: Tensor) -> Tensor:
    """``[key_value_heads, group * rows, dim]`` of ``[heads, rows, dim]``: heads of the same keys together."""
    return rows.reshape(key.shape[0], -1, rows.shape[2])


def _weights(scaled: Tensor, seen: Tensor, block: QueryBlock) -> Tensor:
    """``[key_value_heads, group * rows, seen]``: the softmax of the scores that the mask leaves."""
    rows = block.queries.stop - block.queries.start
    scores = torch.bmm(scaled, seen.transpose(1, 2))
    square = scores.view(-1, rows, seen.shape[1])[:, :, -rows:]
    square += torch.full((rows, rows), -torch.inf, dtype=scores.dtype, device=scores.device).triu_(1)
    return scores.softmax(-1)
