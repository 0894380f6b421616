"""What glibc's settings of memory bring to training: ``python benchmarks/allocator.py [--data FILE]``.

As shipped, glibc takes every large tensor from the system and gives it back when it is freed; its pages are
cleared and faulted in again for the next one. Variables of the environment keep them in the process. DPO
steps (reference, policy, AdamW) on batches of changing lengths, as in training, in processes of their own
that alternate: the engine's environment, and the variables of each side on top.

Writes ``results/allocator.json``: seconds of the steps, which the system took part of, and memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import torch
from dpo_step import Side, moved, ours, pairs
from measuring import data_name, in_process, machine, median, parser, peak_megabytes, write

from deft_engine.models import load_policy

_NEVER = str(2**40)  # bytes
SIDES = {
    "as shipped": {},
    "thresholds": {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": _NEVER},
    "no mapping": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": _NEVER, "MALLOC_TOP_PAD_": str(2**26)},
    "torch's huge pages": {"THP_MEM_ALLOC_ENABLE": "1"},
    "glibc's huge pages": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
}
FIGURES = ("seconds", "system_seconds", "peak_mb")


def steps(parsed: argparse.Namespace) -> dict[str, Any]:
    """Steps in this process, the first of which is not counted."""
    samples = pairs(parsed.data, parsed.model, parsed.max_length, (1 + parsed.steps) * parsed.pairs)
    reference = load_policy(parsed.model, "float32")
    policy = moved(reference)
    optimiser = torch.optim.AdamW(policy.parameters(), lr=1e-6, fused=True)
    started, system = 0.0, 0.0
    for number in range(1 + parsed.steps):
        if number == 1:
            started, system = time.perf_counter(), _system_seconds()
        batch = samples[number * parsed.pairs : (number + 1) * parsed.pairs]
        ours(policy, reference, batch, Side("deft"))()[0].backward()
        optimiser.step()
        optimiser.zero_grad()
    taken = time.perf_counter() - started, _system_seconds() - system, peak_megabytes()
    return dict(zip(FIGURES, taken, strict=True))


def _system_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_stime


def main() -> None:
    """Measure, print and write."""
    made = parser(__doc__, "allocator")
    made.add_argument("--data", type=Path)
    made.add_argument("--model", default="builtin:smollm2")
    made.add_argument("--pairs", type=int, default=2)
    made.add_argument("--max-length", type=int, default=256)
    made.add_argument("--steps", type=int, default=10)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parsed = made.parse_args()
    if parsed.here:
        print(json.dumps(steps(parsed)))
        return
    about = machine()
    asked = {name: getattr(parsed, name) for name in ("model", "pairs", "max_length", "steps", "rounds")}
    arguments = [__file__, "--here", *(["--data", str(parsed.data)] if parsed.data else [])]
    for name, value in asked.items():
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
    for _ in range(parsed.rounds):
        for name, variables in SIDES.items():
            found[name].append(in_process(arguments, variables=variables))
    medians = {
        name: {figure: median([each[figure] for each in of]) for figure in FIGURES}
        for name, of in found.items()
    }
    shipped = medians["as shipped"]
    write(
        parsed.out,
        about
        | {"data": data_name(parsed.data)}
        | asked
        | {
            "median": medians,
            "all": found,
            "times_as_fast": {n: round(shipped["seconds"] / m["seconds"], 2) for n, m in medians.items()},
            "times_the_memory": {n: round(m["peak_mb"] / shipped["peak_mb"], 2) for n, m in medians.items()},
        },
    )


if __name__ == "__main__":
    main()
