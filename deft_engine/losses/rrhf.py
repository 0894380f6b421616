"""Rank responses to align with human feedback (eqs 7, 8 and 10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from deft_engine.losses.output import LossOutput
from deft_engine.losses.policy_loss import PolicyLoss
from deft_engine.losses.ranks import logp_metrics, pair_differences, preference_metrics

if TYPE_CHECKING:
    from deft_engine.logps import RankedLogps


class RRHF(PolicyLoss):
    """A hinge on every pair of length-normalised log-probabilities in the wrong order, plus eq 9."""

    name: Literal["rrhf"] = "rrhf"

    def __call__(self, logps: RankedLogps) -> LossOutput:
        """Loss ``[batch]``; a sample with l responses has l (l - 1) / 2 pairs, and all count in full."""
        differences, pairs = pair_differences(logps.scores, logps.mask)  # s_j - s_k where r_k < r_j
        hinges = (-differences).relu().masked_fill(~pairs, 0.0)
        ranking = hinges.sum(dim=1)  # eq 8
        supervised = -logps.policy[:, 0]  # eq 9
        metrics = {
            **preference_metrics(logps.scores, logps.mask),
            **logp_metrics(logps.policy, logps.mask),
            "rrhf/rank_loss": ranking.detach(),
            "nll_loss": supervised.detach(),
        }
        return LossOutput(ranking + supervised, metrics)  # eq 10
