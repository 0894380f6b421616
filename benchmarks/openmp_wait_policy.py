"""How torch's OpenMP threads should wait: ``python benchmarks/openmp_wait_policy.py``.

Small forward and backward passes under both policies, side by side in one run: alone, beside a
process that keeps one core busy, and beside one for every core. Takes a minute and writes
``results/openmp_wait_policy.json``; "alone" means something only on a machine where nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deft_engine.matrix_products import cpu_name

POLICIES: dict[str, dict[str, str]] = {
    "spin (default)": {},
    "sleep (PASSIVE)": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"},
}
ROUNDS = 3
SECONDS = 1.0
BUSY = "while True: pass"


def step_milliseconds(seconds: float) -> float:
    """Median time of a training step of a small network, in this process."""
    import torch

    torch.manual_seed(0)
    network = torch.nn.Sequential(*[torch.nn.Linear(256, 256) for _ in range(8)])
    rows = torch.randn(192, 256)
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        network(rows).square().mean().backward()
        times.append(time.perf_counter() - start)
    return statistics.median(times[len(times) // 10 :]) * 1000


def measure(variables: dict[str, str]) -> float:
    """The same in a process of its own that has these variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    finished = subprocess.run(
        [sys.executable, __file__, "--one"],
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(finished.stdout)


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """So many processes that keep a core busy each."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def compare() -> dict[str, Any]:
    """Milliseconds a step: situation -> policy -> median and all rounds, the policies alternating."""
    found: dict[str, Any] = {}
    for situation, busy in {
        "alone": 0,
        "one busy process": 1,
        "a busy process per core": os.cpu_count() or 1,
    }.items():
        rounds: dict[str, list[float]] = {policy: [] for policy in POLICIES}
        with busy_processes(busy):
            for _ in range(ROUNDS):
                for policy, variables in POLICIES.items():
                    rounds[policy].append(measure(variables))
        found[situation] = {
            policy: {"median_ms": round(statistics.median(each), 3), "rounds_ms": [round(t, 3) for t in each]}
            for policy, each in rounds.items()
        }
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", action="store_true", help="measure this process alone and print the time")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/openmp_wait_policy.json")
    parsed = parser.parse_args()
    if parsed.one:
        print(step_milliseconds(SECONDS))
        return
    from importlib.metadata import version

    load_before = os.getloadavg()[0]
    result = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "torch": version("torch"),
        "load_before": round(load_before, 2),
        "rounds": ROUNDS,
        "step": "forward and backward of 8 linear layers 256 x 256 on 192 rows",
        "milliseconds": compare(),
    }
    parsed.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
