"""The distribution reward as a grader: no reward model is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from deft_engine.graders.grader import BaseGrader, ModelInput, Responses, SampleScore
from deft_engine.graders.scoring_context import Rewards, ScoringContext
from deft_engine.types import Samples

if TYPE_CHECKING:
    from deft_engine.stages import RankBy


class DistributionGrader(BaseGrader):
    """R_dis (eqs 16, 17) of responses under the initial policy, with the Q_diff of all data."""

    needs_model: ClassVar[bool] = True
    needs_qdiff: ClassVar[bool] = True
    ranks: ClassVar[bool] = False

    name: Literal["distribution"] = "distribution"
    difference: bool = False
    """Grade a sample by R_dis(y_1) - R_dis(y_l), and not by R_dis(y_1)."""

    @property
    def sample_score(self) -> SampleScore:
        return "margin" if self.difference else "first"

    def responses(self, rank_by: RankBy) -> Responses:
        return "ends" if self.difference else "best"

    def models(self) -> tuple[ModelInput, ...]:
        return (ModelInput("model"),)

    def scorer(self) -> Self:
        return self.model_copy(update={"difference": False})

    def score(self, samples: Samples, context: ScoringContext) -> Iterator[Rewards]:
        """Score with the job's own model.

        Raises:
            ModelError: it cannot be used, or Q_diff is another tokenizer's.
        """
        from deft_engine.policy_scoring import distribution_rewards  # loads torch

        yield from distribution_rewards(samples, context)
