"""Answers made elsewhere in the place of generated ones, for the stage ``generate``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deft_engine.data.generations import answered, write_generations
from deft_engine.data.imported_generations import read_imported
from deft_engine.data.samples import StoredSamples
from deft_engine.data.selection import choose
from deft_engine.errors import DataError
from deft_engine.run import StageContext
from deft_engine.stages import GenerateSpec
from deft_engine.types import Generation


def run(context: StageContext[GenerateSpec]) -> dict[str, Any]:
    """Write ``generations.jsonl`` of the chosen samples that were answered; the result counts the others.

    Raises:
        DataError: none of the chosen samples was answered.
    """
    samples = StoredSamples(context.path("samples"))
    chosen = set(choose(len(samples), context.spec.samples, context.spec.seed))
    taken = 0

    def generations() -> Iterator[Generation]:
        nonlocal taken
        answers = read_imported(context.path("generations"))  # in the samples' order
        name, response = next(answers, (None, ""))
        for position, sample in enumerate(samples):
            if sample.id != name:
                continue
            if position in chosen:
                taken += 1
                yield answered(sample, response)
            name, response = next(answers, (None, ""))

    write_generations(context.out / "generations.jsonl", generations())
    if taken == 0:
        raise DataError(
            f"none of the {len(chosen)} chosen samples is answered in the imported generations",
            hint="set evaluation.samples to null, or import answers to more samples",
        )
    missing = len(chosen) - taken
    warnings = (
        [f"{missing} of the {len(chosen)} chosen samples are not answered in the imported generations"]
        if missing
        else []
    )
    for warning in warnings:
        context.events.log(warning, level="warning")
    return {"samples": taken, "unanswered": missing, "tokens": 0, "warnings": warnings}
