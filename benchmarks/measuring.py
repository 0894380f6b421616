"""What the benchmarks share: the machine's name, data, alternating rounds, peak memory, results."""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from deft_client.demo_data import write_jsonl
from deft_engine.base import Spec
from deft_engine.data.samples import read_samples
from deft_engine.environment import ENGINE_DEFAULTS, engine_environment
from deft_engine.matrix_products import cpu_name
from deft_engine.run import StopRequest, execute
from deft_engine.stages import ImportSpec
from deft_engine.types import Sample

RESULTS = Path(__file__).parent / "results"
_VERSIONED = ("torch", "transformers", "tokenizers", "trl")
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # what products of matrices depend on most
_GENERATED_ROWS, _SEED = 2_000, 7


def machine() -> dict[str, Any]:
    """Where and with what a benchmark runs, and how busy the machine is as it begins."""
    versions = {}
    for name in _VERSIONED:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "instructions": instructions(),
        "versions": versions,
        "load_before": round(os.getloadavg()[0], 2),
    }


def instructions() -> list[str]:
    """Which of the sets of instructions that products of matrices use this CPU has, as Linux tells it."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return []
    return [name for name in _INSTRUCTIONS if name in words]


def alternate(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Every side once a round, so that what else the machine does falls on all of them."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            found[name].append(measure())
    return found


def seconds(work: Callable[[], Any]) -> float:
    """How long ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median(values: Sequence[float], digits: int = 4) -> float:
    """The median, rounded."""
    return round(statistics.median(values), digits)


def peak_megabytes() -> float:
    """The most memory that this process has held so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def in_process(
    arguments: Sequence[str], shipped: bool = False, variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The JSON that a Python script prints at its end, run in a process of its own.

    Args:
        arguments: the script and its arguments.
        shipped: in the environment as it comes, not the engine's.
        variables: of the environment, on top.
    """
    environment = engine_environment(os.environ)
    if shipped:
        environment = {name: value for name, value in os.environ.items() if name not in ENGINE_DEFAULTS}
    environment |= variables or {}
    finished = subprocess.run(
        [sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    printed: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return printed


def run_stage(folder: Path, stage: str, spec: Spec, inputs: Mapping[str, str]) -> Path:
    """Run a stage of the engine in ``folder``, which is made; returns the folder of its artifacts."""
    folder.mkdir(parents=True)
    request = {
        "stage": stage,
        "fingerprint": "0" * 64,
        "spec": spec.model_dump(mode="json"),
        "inputs": dict(inputs),
        "input_ids": dict.fromkeys(inputs, "benchmark"),
    }
    (folder / "stage.json").write_text(json.dumps(request), encoding="utf-8")
    if execute(folder, StopRequest()) != 0:
        raise SystemExit((folder / "events-1.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return folder / "out"


def samples_of(data: Path | None) -> list[Sample]:
    """The samples of a file in any of the formats, or generated ones."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = data or folder / "demo.jsonl"
        if data is None:
            write_jsonl(path, _GENERATED_ROWS, _SEED)
        out = run_stage(folder / "import", "import", ImportSpec(), {"upload": str(path.resolve())})
        return list(read_samples(out / "samples.parquet"))


def data_name(data: Path | None) -> str:
    """How a result names its data."""
    return f"{data.parent.name}/{data.name}" if data else f"deft_client.demo_data, seed {_SEED}"


def parser(doc: str | None, result: str) -> argparse.ArgumentParser:
    """A benchmark's command line: ``--out``, by default ``results/<result>.json``."""
    made = argparse.ArgumentParser(description=doc)
    made.add_argument("--out", type=Path, default=RESULTS / f"{result}.json")
    return made


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result, and print it."""
    text = json.dumps({**result, "load_after": round(os.getloadavg()[0], 2)}, indent=2) + "\n"
    path.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
