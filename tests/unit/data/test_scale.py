"""The paper's 160,793 ranked samples through the stages that need no model: sizes, time and memory."""

from __future__ import annotations

import gzip
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SUBSETS = {
    "harmless_base": (42_536, 1_587),
    "helpful_base": (43_835, 1_636),
    "helpful_online": (22_002, 821),
    "helpful_rejection": (52_420, 1_956),
}
WORDS = [
    f"{first}{second}" for first in ("ka", "lo", "mi", "tu", "re") for second in ("", "n", "st", "rda", "ble")
]


def write_upload(path: Path) -> None:
    """Three scored responses a row, of the length of HH's, subsets mixed."""
    generator = random.Random(5)
    passages = [" ".join(generator.choices(WORDS, k=45)) for _ in range(500)]
    names = [name for name, (count, _) in SUBSETS.items() for _ in range(count)]
    generator.shuffle(names)
    with gzip.open(path, "wb", compresslevel=1) as file:
        for number, name in enumerate(names):
            texts = [f"{passage} {number}" for passage in generator.sample(passages, 4)]
            row = {
                "id": f"{name}/{number}",
                "subset": name,
                "prompt": [{"role": "user", "content": texts[3]}],
                "responses": texts[:3],
                "scores": [generator.gauss(0, 1) for _ in range(3)],
            }
            file.write(json.dumps(row).encode() + b"\n")


def run_stage(
    folder: Path, stage: str, spec: dict[str, Any], inputs: dict[str, Path | str]
) -> dict[str, Any]:
    """One stage in a process of its own, as a worker starts it; its manifest's result."""
    folder.mkdir()
    named = {name: str(value) for name, value in inputs.items()}
    request = {"stage": stage, "fingerprint": stage, "spec": spec, "inputs": named, "input_ids": named}
    (folder / "stage.json").write_text(json.dumps(request))
    subprocess.run([sys.executable, "-m", "deft_engine", "stage", str(folder)], check=True)
    result: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())["result"]
    return result


@pytest.mark.slow
def test_the_papers_volume(tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    write_upload(upload)
    started = time.monotonic()
    imported = run_stage(tmp_path / "import", "import", {}, {"upload": upload})
    samples = tmp_path / "import" / "out" / "samples.parquet"
    import_seconds = time.monotonic() - started
    score = {"grader": {"name": "scores"}, "responses": "all"}
    run_stage(tmp_path / "score", "score", score, {"samples": samples})
    scores = tmp_path / "score" / "out" / "scores.parquet"
    grade = {"a": 3.73, "c": 12.5, "rank_by": "auto"}
    graded = run_stage(tmp_path / "grade", "grade", grade, {"samples": samples, "scores": scores})
    levels = tmp_path / "grade" / "out" / "levels.parquet"
    inputs = {"samples": samples, "scores": scores, "levels": levels, "tokenizer": "builtin:tiny"}
    counted = run_stage(
        tmp_path / "distribution", "distribution", {"thresholds": {}, "rank_by": "auto"}, inputs
    )
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # of the largest process

    assert imported["samples"] == imported["scored"] == 160_793
    assert imported["subsets"] == {name: count for name, (count, _) in SUBSETS.items()}
    assert {name: sizes["A"] for name, sizes in graded["subsets"].items()} == {
        name: size for name, (_, size) in SUBSETS.items()
    }
    assert graded["levels"]["A"] == 6_000
    assert counted["responses_pos"] > 160_793
    assert import_seconds < 60
    assert seconds < 180
    assert peak < 1.5e9
    print(f"import {import_seconds:.1f} s, all four {seconds:.1f} s, peak {peak / 1e6:.0f} MB")
