"""The implicit reward of a policy trained by DPO: how far it has moved from its reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field

from deft_engine.base import ModelName
from deft_engine.graders.grader import INPUT, BaseGrader, ModelInput, Responses, SampleScore
from deft_engine.graders.scoring_context import Rewards, ScoringContext
from deft_engine.types import Samples

if TYPE_CHECKING:
    from deft_engine.stages import RankBy


class ImplicitReward(BaseGrader):
    """beta log(policy(y|x) / reference(y|x)); a sample is graded by that of y_1 minus that of y_l."""

    needs_model: ClassVar[bool] = True
    ranks: ClassVar[bool] = False

    name: Literal["implicit"] = "implicit"
    policy: ModelName
    """The policy: ``job:<id>``, a path or a hub id."""
    policy_revision: str | None = Field(None, max_length=200)
    reference: ModelName | None = None
    """What it was trained from; null is the job's own model."""
    reference_revision: str | None = Field(None, max_length=200)
    beta: float = Field(0.1, gt=0, le=100)
    direction: Literal["low", "high"] = "low"
    """Whether the smallest difference is Level A (the hardest samples) or the largest."""

    @property
    def sample_score(self) -> SampleScore:
        return "margin" if self.direction == "high" else "closeness"

    def responses(self, rank_by: RankBy) -> Responses:
        return "ends"

    def models(self) -> tuple[ModelInput, ...]:
        return (
            ModelInput("model", self.policy, "policy", self.policy_revision),
            ModelInput("reference_model", self.reference, "reference", self.reference_revision),
        )

    def scorer(self) -> Self:
        names = {"policy": INPUT, "policy_revision": None, "reference": None, "reference_revision": None}
        return self.model_copy(update={**names, "direction": "low"})

    def score(self, samples: Samples, context: ScoringContext) -> Iterator[Rewards]:
        """Score with the policy, then with the reference.

        Raises:
            ModelError: one of them cannot be used, or their tokenizers differ.
        """
        from deft_engine.policy_scoring import implicit_rewards  # loads torch

        yield from implicit_rewards(samples, context, self.beta)
