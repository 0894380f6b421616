"""Rewards from a reward model (section 3.1: r_train)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from deft_engine.base import ModelName, Spec
from deft_engine.errors import ModelError
from deft_engine.graders.scoring_context import ScoringContext
from deft_engine.types import Sample


class RewardModelGrader(Spec):
    """r(x, y) of a reward model."""

    needs_model: ClassVar[bool] = True

    name: Literal["reward_model"] = "reward_model"
    model: ModelName
    """The reward model: ``job:<id>``, a path or a hub id."""
    revision: str | None = Field(None, max_length=200)
    scope: Literal["needed", "all"] = "needed"
    """``needed``: where l = 2 and the annotated order rules, only y_1 is scored,
    unless the method looks at rewards; ``all``: every response."""

    def score(self, samples: Sequence[Sample], context: ScoringContext) -> Iterator[list[float | None]]:
        """Score with the stage's reward model.

        Raises:
            ModelError: the stage has no reward model, or it cannot be used.
        """
        if context.model is None:
            raise ModelError("the reward model is missing", hint="name one in deft.grader.model")
        from deft_engine.reward_scoring import score_samples  # loads torch

        yield from score_samples(
            context.model,
            samples,
            responses=context.responses,
            max_length=context.max_length,
            events=context.events,
            stop=context.stop,
            work=context.work,
        )
