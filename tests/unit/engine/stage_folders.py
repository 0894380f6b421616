"""Stage runs in folders of their own, as a worker would make them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from deft_engine.base import Spec
from deft_engine.data.samples import write_samples
from deft_engine.events import read_events
from deft_engine.run import StopRequest, execute
from deft_engine.types import Message, Response, Sample

WORDS = ("river", "stone", "cloud", "paper", "green", "seven", "apple", "table", "winter", "music")
torch.set_num_threads(1)  # more only get in each other's way on so small a model
UNREPEATABLE = {"tokens_per_second"}  # the one metric that depends on the clock


class StopAfter(StopRequest):
    """Asks to stop when it has been looked at so many times: after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def __bool__(self) -> bool:
        self._left -= 1
        return self._left < 0


class StopAtCheck(StopRequest):
    """Stops at the check after so many, as if the signal had come in between."""

    def __init__(self, checks: int) -> None:
        super().__init__()
        self.left = checks

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.set()
        super().check()


def make_samples(count: int, responses: int = 2) -> list[Sample]:
    """Seeded samples; a better response says "please" more often."""
    chance = random.Random(7)
    made = []
    for number in range(count):
        texts = [
            " ".join(["please"] * (responses - 1 - rank) + chance.choices(WORDS, k=chance.randint(2, 6)))
            for rank in range(responses)
        ]
        prompt = (Message("user", " ".join(chance.choices(WORDS, k=chance.randint(1, 5)))),)
        made.append(Sample(f"s{number}", "all", prompt, tuple(map(Response, texts)), number + 1))
    return made


def make_stage(folder: Path, stage: str, spec: Spec, samples: list[Sample], **inputs: str) -> Path:
    """A folder with the request for ``stage`` on ``samples`` and the built-in model."""
    folder.mkdir()
    write_samples(folder / "samples.parquet", samples)
    named = {"samples": str(folder / "samples.parquet"), "model": "builtin:tiny", **inputs}
    request = {
        "stage": stage,
        "fingerprint": "f" * 64,
        "attempt": 1,
        "spec": spec.model_dump(mode="json"),
        "inputs": named,
        "input_ids": dict.fromkeys(named, "id"),
    }
    (folder / "stage.json").write_text(json.dumps(request))
    return folder


def set_attempt(folder: Path, attempt: int) -> None:
    """Make the request one for ``attempt``."""
    request = json.loads((folder / "stage.json").read_bytes())
    (folder / "stage.json").write_text(json.dumps({**request, "attempt": attempt}))


def run_stage(folder: Path, attempt: int = 1, stop: StopRequest | None = None) -> int:
    """Run the stage in this process; returns its exit status."""
    set_attempt(folder, attempt)
    return execute(folder, StopRequest() if stop is None else stop)


def run_stage_process(folder: Path, sabotage: str) -> subprocess.CompletedProcess[str]:
    """Run the stage in a process of its own that first executes the code ``sabotage``."""
    code = f"import sys\n{sabotage}\nfrom deft_engine.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, "stage", str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # the same arithmetic as in this process
    )


def result_of(folder: Path) -> dict[str, Any]:
    """The result in the manifest."""
    result: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())["result"]
    return result


def error_of(folder: Path, attempt: int = 1) -> dict[str, Any]:
    """The last event of an attempt that failed."""
    events = [event for _, event in read_events(folder / f"events-{attempt}.jsonl", 0)]
    assert events[-1]["type"] == "error", events[-1]
    return events[-1]


def points(folder: Path) -> dict[tuple[str, int], Any]:
    """(metric, step) -> value over all attempts, a later attempt replacing what an earlier one said."""
    found: dict[tuple[str, int], Any] = {}
    for path in sorted(folder.glob("events-*.jsonl")):
        for _, event in read_events(path, 0):
            if event["type"] == "metrics":
                found |= {(name, event["step"]): value for name, value in event["values"].items()}
    return {key: value for key, value in found.items() if key[0] not in UNREPEATABLE}


def outputs(folder: Path) -> dict[str, bytes]:
    """The bytes of every file that was made."""
    files = [path for path in (folder / "out").rglob("*") if path.is_file()]
    return {path.relative_to(folder / "out").as_posix(): path.read_bytes() for path in files}


def weights(folder: Path) -> bytes:
    """The bytes of the model that was made."""
    return (folder / "out" / "model" / "model.safetensors").read_bytes()
