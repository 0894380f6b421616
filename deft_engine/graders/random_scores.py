"""Seeded random rewards: the control that the paper lacks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from deft_engine.graders.grader import BaseGrader
from deft_engine.graders.scoring_context import Rewards, ScoringContext
from deft_engine.types import Samples


class RandomScores(BaseGrader):
    """Uniform in [0, 1), from the seed, the sample's id and the rank alone."""

    ranks: ClassVar[bool] = False

    name: Literal["random"] = "random"
    seed: int = Field(42, ge=0, le=2**32 - 1)

    def score(self, samples: Samples, context: ScoringContext) -> Iterator[Rewards]:
        """Draw a reward for each response."""
        for sample in samples:
            drawn = [self._draw(sample.id, rank) for rank in context.needed(sample)]
            yield context.placed(sample, drawn)

    def _draw(self, sample_id: str, rank: int) -> float:
        digest = hashlib.blake2b(f"{self.seed}/{rank}/{sample_id}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest) >> 11) / 2**53  # a double has 53 bits, so this is below 1
