"""The stage ``score``: a reward for each response that needs one, by a grader."""

from __future__ import annotations

import math
import time
from typing import Any

from deft_engine.data.samples import StoredSamples, read_index
from deft_engine.errors import ModelError
from deft_engine.graders.scoring_context import ScoringContext
from deft_engine.run import StageContext
from deft_engine.scores import write_scores
from deft_engine.stages import ScoreSpec

_REPORT_EVERY = 5_000  # samples


def run(context: StageContext[ScoreSpec]) -> dict[str, Any]:
    """Grade the input ``samples``; write ``scores.parquet``.

    Raises:
        DataError: a score is missing in the file.
        ModelError: a model cannot be used, or gives no number.
    """
    started = time.monotonic()
    path = context.path("samples")
    samples, index = StoredSamples(path), read_index(path)
    grader = context.spec.grader
    scoring = ScoringContext(
        inputs=context.inputs,
        responses=context.spec.responses,
        max_length=context.spec.max_length,
        template=context.spec.template,
        dtype=context.spec.dtype,
        events=context.events,
        stop=context.stop,
        work=context.work,
        world=context.world,
    )
    rewards: list[float | None] = []
    for count, (sample_id, scored) in enumerate(
        zip(index.ids, grader.score(samples, scoring), strict=True), start=1
    ):
        for rank, reward in enumerate(scored):
            if reward is not None and not math.isfinite(reward):
                raise ModelError(
                    f'the reward of response {rank + 1} of sample "{sample_id}" is {reward}',
                    hint="use another model, or score in float32",
                )
        rewards += scored
        if not grader.needs_model and count % _REPORT_EVERY == 0:
            context.stop.check()
            context.events.progress(count, len(samples))
    context.events.progress(len(samples), len(samples))
    write_scores(context.out / "scores.parquet", index, rewards)
    return {
        "responses": len(rewards),
        "scored": sum(reward is not None for reward in rewards),
        "seconds": round(time.monotonic() - started, 3),
    }
