"""The limit of a step: matrix products at this machine's best rate, and how many of them a batch needs.

``python benchmarks/floating_point.py`` prints the rates in GFLOP/s, in the environment that it is started in.
"""

from __future__ import annotations

import json
import time
from typing import Any, get_args

import torch
from torch import nn
from transformers import PreTrainedModel

from deft_engine.data.collate import RankedBatch
from deft_engine.matrix_products import Library, multiplied_by

SHAPES = ((1024, 1024, 1024), (2048, 576, 1536), (2048, 1536, 576), (2048, 2048, 2048))  # m, k, n
REPEATS = 5


def rate(shape: tuple[int, int, int], dtype: torch.dtype, repeats: int = REPEATS) -> float:
    """The best of some products, in GFLOP/s."""
    m, k, n = shape
    left, right = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - started)
    return 2 * m * k * n / best / 1e9


def peak_rate(dtype: torch.dtype = torch.float32) -> float:
    """The best rate over shapes of a small model's layers, by the best library."""
    rates = []
    for library in get_args(Library):
        with multiplied_by(library):
            rates += [rate(shape, dtype) for shape in SHAPES]
    return max(rates)


def fast_bfloat16() -> dict[str, Any]:
    """Whether bfloat16 products are faster than float32 ones here: some CPUs only emulate them."""
    rates = {name: peak_rate(getattr(torch, name)) for name in ("float32", "bfloat16")}
    return {"fast": rates["bfloat16"] > 1.2 * rates["float32"]} | {
        f"{name}_gflop_s": round(each, 1) for name, each in rates.items()
    }


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
    print(json.dumps({name: round(peak_rate(getattr(torch, name)), 1) for name in ("float32", "bfloat16")}))


if __name__ == "__main__":
    main()
