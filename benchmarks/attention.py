"""Attention over a packed row on a CPU: ``python benchmarks/attention.py``.

A layer with the heads of SmolLM2-135M, forward and backward, over a row of eight samples of two responses:
torch's ``scaled_dot_product_attention`` beside products of matrices, in float32 by either library and in
bfloat16; and torch's kernel for a decoding step of 64 answers, by either library. One thread and its own
time, so that what else the machine does disturbs little. Writes ``results/attention.json``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import get_args

import torch
from measuring import alternate, machine, median, parser, write
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from deft_engine.attention_by_products import attention_by_products
from deft_engine.data.collate import Segments
from deft_engine.matrix_products import Library, multiplied_by
from deft_engine.packed_attention import PackedLayout, attention_by_kernel

_HEADS, _KEY_VALUE_HEADS, _DIM = 9, 3, 64
_SAMPLES = ((260, 130, 130), (150, 90, 200), (300, 60, 100), (200, 200, 100)) * 2  # prompt, two responses
_ROUNDS = 7
_ANSWERS, _SEEN = 64, 400  # of a decoding step; tokens that the longest has seen
_STEP_ROUNDS = 50


def row() -> tuple[Segments, ...]:
    """The segments of one packed row."""
    segments, start = [], 0
    for prompt, *responses in _SAMPLES:
        segments.append(Segments(start, prompt, tuple(responses)))
        start += prompt + sum(responses)
    return tuple(segments)


def by_products(layout: PackedLayout, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What packed batches take on a CPU."""
    return attention_by_products(query[0], key[0], value[0], layout.segments, _DIM**-0.5)[None]


def by_kernel(layout: PackedLayout, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What they take elsewhere."""
    return attention_by_kernel(query, key, value, layout)


Attention = Callable[[PackedLayout, Tensor, Tensor, Tensor], Tensor]


def seconds(attend: Attention, library: Library, given: Sequence[Tensor]) -> float:
    """Of one forward and backward pass."""
    with multiplied_by(library):
        started = time.thread_time()
        attended = attend(PackedLayout(row()), *given)
        torch.autograd.grad(attended.sum(), given)
        return time.thread_time() - started


def step_seconds(library: Library, query: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> float:
    """Of a decoding step's attention."""
    with multiplied_by(library):
        started = time.thread_time()
        scaled_dot_product_attention(query, keys, values, attn_mask=seen)
        return time.thread_time() - started


def step_sides() -> dict[str, Callable[[], float]]:
    """A token of each answer under way, over what it has seen so far, by either library."""
    seen = torch.zeros(_ANSWERS, 1, 1, _SEEN)
    for answer, length in enumerate(torch.linspace(_SEEN / 3, _SEEN, _ANSWERS).int().tolist()):
        seen[answer, ..., length:] = -torch.inf
    query = torch.randn(_ANSWERS, _KEY_VALUE_HEADS, _HEADS // _KEY_VALUE_HEADS, _DIM)
    keys, values = torch.randn(2, _ANSWERS, _KEY_VALUE_HEADS, _SEEN, _DIM)
    return {
        library: partial(step_seconds, library, query, keys, values, seen) for library in get_args(Library)
    }


def main() -> None:
    arguments = parser(__doc__, "attention").parse_args()
    torch.set_num_threads(1)
    tokens = sum(map(sum, _SAMPLES))
    sides = {}
    for dtype in (torch.float32, torch.bfloat16):
        given = [
            torch.randn(1, heads, tokens, _DIM, dtype=dtype, requires_grad=True)
            for heads in (_HEADS, _KEY_VALUE_HEADS, _KEY_VALUE_HEADS)
        ]
        for library in get_args(Library):
            for name, attend in (("kernel", by_kernel), ("products", by_products)):
                side = f"{str(dtype).removeprefix('torch.')}, {library}: {name}"
                sides[side] = partial(seconds, attend, library, given)
    here = machine()
    times = {side: median(taken) for side, taken in alternate(sides, _ROUNDS).items()}
    ratios = {
        side.removesuffix(": products"): round(times[side.replace("products", "kernel")] / taken, 2)
        for side, taken in times.items()
        if side.endswith("products")
    }
    steps = {library: median(taken, 6) for library, taken in alternate(step_sides(), _STEP_ROUNDS).items()}
    found = {
        "tokens": tokens,
        "core_seconds": times,
        "times_as_fast": ratios,
        "step_core_seconds": steps,
        "step_onednn_over_shipped": round(steps["onednn"] / steps["shipped"], 2),
    }
    write(arguments.out, {**here, **found})


if __name__ == "__main__":
    main()
