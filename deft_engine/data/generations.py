"""``generations.jsonl``: a model's answers, one JSON object a line. No torch here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from deft_engine.types import Generation, Message, Sample


def write_generations(path: Path, generations: Iterable[Generation]) -> None:
    """Write answers with the fields ``sample_id, subset, prompt, response, reference``."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for generation in generations:
            row = {
                "sample_id": generation.sample_id,
                "subset": generation.subset,
                "prompt": [message._asdict() for message in generation.prompt],
                "response": generation.response,
                "reference": generation.reference,
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def answered(sample: Sample, response: str) -> Generation:
    """A model's answer to a sample's prompt, beside the annotated best response."""
    return Generation(sample.id, sample.subset, sample.prompt, response, reference=sample.chosen.text)


def read_generations(path: Path) -> Iterator[Generation]:
    """The answers in the file's order."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            row = json.loads(line)
            yield Generation(
                sample_id=row["sample_id"],
                subset=row["subset"],
                prompt=tuple(Message(**message) for message in row["prompt"]),
                response=row["response"],
                reference=row["reference"],
            )
