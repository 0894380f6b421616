"""Rewards that came with the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from deft_engine.base import Spec
from deft_engine.errors import DataError
from deft_engine.graders.scoring_context import ScoringContext
from deft_engine.types import Sample


class FileScores(Spec):
    """The scores in the uploaded file; a sample without them is an error that names its line."""

    needs_model: ClassVar[bool] = False

    name: Literal["scores"] = "scores"

    def score(self, samples: Sequence[Sample], context: ScoringContext) -> Iterator[list[float | None]]:
        """Take each response's own reward.

        Raises:
            DataError: a response that needs a reward has none.
        """
        for sample in samples:
            needed = context.responses_needed(sample)
            rewards = [response.reward for response in sample.responses[:needed]]
            if None in rewards:
                raise DataError(
                    f'line {sample.line}: response {rewards.index(None) + 1} of sample "{sample.id}" '
                    "has no score in the file",
                    hint="give every response a score, or grade with a reward model",
                    code="missing_score",
                )
            yield rewards + [None] * (len(sample.responses) - needed)
