"""Rewards that came with the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from deft_engine.errors import DataError
from deft_engine.graders.grader import BaseGrader
from deft_engine.graders.scoring_context import Rewards, ScoringContext
from deft_engine.types import Samples


class FileScores(BaseGrader):
    """The scores in the uploaded file; a sample without them is an error that names its line."""

    name: Literal["scores"] = "scores"

    def score(self, samples: Samples, context: ScoringContext) -> Iterator[Rewards]:
        """Take each response's own reward.

        Raises:
            DataError: a response that needs a reward has none.
        """
        for sample in samples:
            found: list[float] = []
            for index in context.needed(sample):
                reward = sample.responses[index].reward
                if reward is None:
                    raise DataError(
                        f'line {sample.line}: response {index + 1} of sample "{sample.id}" '
                        "has no score in the file",
                        hint="give every response a score, or grade with a reward model",
                        code="missing_score",
                    )
                found.append(reward)
            yield context.placed(sample, found)
