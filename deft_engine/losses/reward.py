"""Bradley-Terry loss of the reward model (eq 1), and its form with a margin (Touvron et al. 2023b, eq 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from deft_engine.base import Spec
from deft_engine.losses.output import LossOutput
from deft_engine.losses.ranks import mean_over, pair_differences, preference_metrics

if TYPE_CHECKING:
    from torch import Tensor


class BradleyTerry(Spec):
    """-log sigmoid(r_i - r_j - margin), averaged over all pairs i better than j of a ranked sample."""

    name: Literal["reward"] = "reward"
    margin: float = Field(0.0, ge=0, le=1e6)
    """The margin of a pair is this times the difference of its annotated rewards; 0 is eq 1."""

    @property
    def needs_rewards(self) -> bool:
        """Whether it looks at the annotated rewards."""
        return self.margin > 0

    def __call__(self, rewards: Tensor, mask: Tensor, annotated: Tensor | None = None) -> LossOutput:
        """Loss ``[batch]``.

        Args:
            rewards: ``[batch, ranks]``, best first.
            mask: ``[batch, ranks]`` bool: there is a response of this rank; two at least in each row.
            annotated: ``[batch, ranks]``: the rewards that came with the data.

        Raises:
            ValueError: there is a margin, and ``annotated`` is None.
        """
        from torch.nn.functional import logsigmoid

        differences, pairs = pair_differences(rewards, mask)
        metrics = preference_metrics(rewards, mask)
        if self.margin:
            if annotated is None:
                raise ValueError("a margin needs the annotated rewards (TrainingBatch.rewards)")
            gaps, _ = pair_differences(annotated.to(rewards), mask)
            differences = differences - self.margin * gaps
        return LossOutput(mean_over(-logsigmoid(differences), pairs), metrics)  # eq 1
