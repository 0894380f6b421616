"""Rewards from a reward model (section 3.1: r_train)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from deft_engine.base import ModelName
from deft_engine.graders.grader import INPUT, BaseGrader, ModelInput, Responses
from deft_engine.graders.scoring_context import Rewards, ScoringContext
from deft_engine.types import Samples

if TYPE_CHECKING:
    from deft_engine.stages import RankBy


class RewardModelGrader(BaseGrader):
    """r(x, y) of a reward model."""

    needs_model: ClassVar[bool] = True

    name: Literal["reward_model"] = "reward_model"
    model: ModelName
    """The reward model: ``job:<id>``, a path or a hub id."""
    revision: str | None = Field(None, max_length=200)
    scope: Literal["needed", "all"] = "needed"
    """``needed``: where l = 2 and the annotated order rules, only y_1 is scored,
    unless the method looks at rewards; ``all``: every response."""

    def responses(self, rank_by: RankBy) -> Responses:
        return "first" if self.scope == "needed" and rank_by != "reward" else "all"

    def models(self) -> tuple[ModelInput, ...]:
        return (ModelInput("reward_model", self.model, "model", self.revision),)

    def scorer(self) -> Self:
        return self.model_copy(update={"model": INPUT, "revision": None, "scope": "all"})

    def score(self, samples: Samples, context: ScoringContext) -> Iterator[Rewards]:
        """Score with the stage's reward model.

        Raises:
            ModelError: it cannot be used.
        """
        from deft_engine.reward_scoring import score_samples  # loads torch

        yield from score_samples(
            context.inputs["reward_model"],
            samples,
            responses=context.responses,
            max_length=context.max_length,
            dtype=context.dtype,
            events=context.events,
            stop=context.stop,
            work=context.work,
            world=context.world,
        )
