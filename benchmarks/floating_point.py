"""The limit of a step: matrix products at this machine's best rate, and how many of them a batch needs.

``python benchmarks/floating_point.py`` prints the rates in GFLOP/s, in the environment that it is started in;
of bfloat16 where this CPU does not only emulate it.
"""

from __future__ import annotations

import json
import time
from functools import cache
from typing import get_args

import torch
from torch import nn
from transformers import PreTrainedModel

from deft_engine.data.collate import RankedBatch
from deft_engine.matrix_products import Library, multiplied_by
from deft_engine.models import DtypeName

SHAPES = ((1024, 1024, 1024), (2048, 576, 1536), (2048, 1536, 576), (2048, 2048, 2048))  # m, k, n
PROBE = (256, 576, 576)  # small, since a CPU may take seconds for a larger one of a type that it emulates
PRECISIONS: tuple[DtypeName, ...] = ("float32", "bfloat16")
REPEATS = 5


def rate(shape: tuple[int, int, int], dtype: torch.dtype) -> float:
    """The best of some products, in GFLOP/s."""
    m, k, n = shape
    left, right = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - started)
    return 2 * m * k * n / best / 1e9


def best_rate(dtype: torch.dtype, *shapes: tuple[int, int, int]) -> float:
    """Over shapes, by the best library."""
    rates = []
    for library in get_args(Library):
        with multiplied_by(library):
            rates += [rate(shape, dtype) for shape in shapes]
    return max(rates)


def peak_rate(dtype: torch.dtype = torch.float32) -> float:
    """The best rate over shapes of a small model's layers."""
    return best_rate(dtype, *SHAPES)


@cache
def fast_precisions() -> tuple[DtypeName, ...]:
    """float32, and bfloat16 where its products are faster: some CPUs only emulate them."""
    rates = {name: best_rate(getattr(torch, name), PROBE) for name in PRECISIONS}
    return PRECISIONS if rates["bfloat16"] > 1.2 * rates["float32"] else PRECISIONS[:1]


def necessary_operations(model: PreTrainedModel, batch: RankedBatch) -> int:
    """Floating-point operations that a DPO step cannot do without.

    The layers see every token once, the head every place that predicts a response token, attention what each
    token may see; each once for the reference and three times for the policy (its backward pass costs twice
    its forward pass). Norms, activations and the optimiser are left out.
    """
    layers = sum(m.weight.numel() for m in model.base_model.modules() if isinstance(m, nn.Linear))
    head = model.get_output_embeddings().weight.numel()
    config = model.config.get_text_config()
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    seen = sum(
        s.prompt * (s.prompt + 1) // 2 + sum(r * s.prompt + r * (r + 1) // 2 for r in s.responses)
        for s in batch.segments
    )
    products = layers * batch.tokens + head * len(batch.target_ids)
    products += 2 * width * config.num_hidden_layers * seen  # scores, and their sum over values
    return 4 * 2 * products


def main() -> None:
    """Print the rates."""
    print(json.dumps({name: round(peak_rate(getattr(torch, name)), 1) for name in fast_precisions()}))


if __name__ == "__main__":
    main()
