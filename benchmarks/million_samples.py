"""A million ranked samples with scores, from the file to Q_diff: ``python benchmarks/million_samples.py``.

Import, grading by the file's scores and counting run as the stages do, each in a process of its own. Writes
``results/million_samples.json``: seconds, samples a second and peak memory of each, and how long the
tokenizer alone takes for the same responses.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import in_process, machine, parser, peak_megabytes, run_stage, seconds, write
from token_counting import tokenise

from deft_engine.base import Spec
from deft_engine.graders import FileScores
from deft_engine.spec_sections import Thresholds
from deft_engine.stages import DistributionSpec, GradeSpec, ImportSpec, ScoreSpec

WORDS = ("good", "answer", "river", "stone", "seven", "apple", "winter", "music", "please", "because")
SPECS: dict[str, Spec] = {
    "import": ImportSpec(),
    "score": ScoreSpec(grader=FileScores(), responses="all"),
    "grade": GradeSpec(a=3.73, c=12.5, rank_by="auto"),
    "distribution": DistributionSpec(thresholds=Thresholds(), rank_by="auto"),
}


def generate(path: Path, samples: int) -> None:
    """Three scored responses of 20 to 60 words to each prompt, in four subsets."""
    chance = random.Random(7)
    words = [" ".join(chance.choices(WORDS, k=chance.randint(20, 60))) for _ in range(5_000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(samples):
            responses = [{"text": chance.choice(words), "score": chance.gauss(0, 1)} for _ in range(3)]
            row = {
                "id": f"s{number}",
                "subset": f"part_{number % 4}",
                "prompt": f"Question {number}: {chance.choice(words)[:80]}",
                "responses": responses,
            }
            file.write(json.dumps(row) + "\n")


def one_stage(stage: str, folder: Path, inputs: dict[str, str]) -> dict[str, float]:
    """Run a stage in this process."""
    taken = seconds(lambda: run_stage(folder / stage, stage, SPECS[stage], inputs))
    return {"seconds": round(taken, 1), "peak_mb": peak_megabytes()}


def measure(folder: Path, samples: int) -> dict[str, Any]:
    """Every stage once, on what the one before made."""
    upload = folder / "upload.jsonl"
    generate(upload, samples)
    made = {name: folder / name / "out" for name in SPECS}
    data = str(made["import"] / "samples.parquet")
    scores = {"samples": data, "scores": str(made["score"] / "scores.parquet")}
    inputs = {
        "import": {"upload": str(upload)},
        "score": {"samples": data},
        "grade": scores,
        "distribution": {
            **scores,
            "tokenizer": "builtin:tiny",
            "levels": str(made["grade"] / "levels.parquet"),
        },
    }
    found: dict[str, Any] = {"upload_mb": round(upload.stat().st_size / 2**20)}
    for stage in SPECS:
        arguments = [
            __file__,
            "--stage",
            stage,
            "--folder",
            str(folder),
            "--inputs",
            json.dumps(inputs[stage]),
        ]
        found[stage] = in_process(arguments)
        found[stage]["samples_per_second"] = round(samples / found[stage]["seconds"])
        sys.stderr.write(f"{stage}: {found[stage]}\n")
    result = json.loads((folder / "distribution" / "manifest.json").read_bytes())["result"]
    found["counted"] = {name: value for name, value in result.items() if isinstance(value, int | float)}
    found["tokenizer_alone_seconds"] = round(seconds(lambda: tokenise(Path(data), "builtin:tiny")), 1)
    return found


def main() -> None:
    """Measure, print and write."""
    made = parser(__doc__, "million_samples")
    made.add_argument("--samples", type=int, default=1_000_000)
    made.add_argument("--stage", choices=SPECS, help=argparse.SUPPRESS)
    made.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    made.add_argument("--inputs", type=json.loads, help=argparse.SUPPRESS)
    parsed = made.parse_args()
    if parsed.stage:
        print(json.dumps(one_stage(parsed.stage, parsed.folder, parsed.inputs)))
        return
    about = machine()
    with tempfile.TemporaryDirectory() as folder:
        write(parsed.out, about | {"samples": parsed.samples} | measure(Path(folder), parsed.samples))


if __name__ == "__main__":
    main()
