"""Preference ranking optimisation (eqs 7, 11 and 12), as the paper has it and as it was published in code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from deft_engine.losses.output import LossOutput
from deft_engine.losses.policy_loss import PolicyLoss
from deft_engine.losses.ranks import choice_losses, logp_metrics, preference_metrics

if TYPE_CHECKING:
    from torch import Tensor

    from deft_engine.logps import RankedLogps


class PRO(PolicyLoss):
    """l - 1 rounds, each telling the best response left from all worse ones, plus ``sft_weight`` x eq 9."""

    name: Literal["pro"] = "pro"
    variant: Literal["paper", "reference"] = "paper"
    """``paper``: eq 11. ``reference``: PRO's published code, which sharpens each round by gaps of the rewards
    and weighs the SFT term by (l - 1)^2; every response then needs a reward."""
    sft_weight: float = Field(0.05, ge=0, le=100)
    """Weight of the SFT term on y_1 (Appendix A.1: 5e-2)."""

    @property
    def needs_rewards(self) -> bool:
        """Whether the variant looks at rewards."""
        return self.variant == "reference"

    def __call__(self, logps: RankedLogps) -> LossOutput:
        """Loss ``[batch]``; the metric ``pro/rank_k_loss`` is NaN where a sample has no round k.

        Raises:
            ValueError: the variant needs ``logps.rewards``, and it is None.
        """
        scores = logps.scores  # eq 7
        logits = scores[:, None, :].expand(-1, scores.shape[1], -1)  # [batch, rounds, ranks]
        weight: Tensor | float = self.sft_weight
        if self.variant == "reference":
            if logps.rewards is None:
                raise ValueError("PRO's variant reference needs the rewards (RankedLogps.with_rewards)")
            logits = logits * _temperatures(logps.rewards, logps.mask)
            others = logps.mask.sum(dim=1).to(scores.dtype) - 1  # [batch]: l - 1
            weight = self.sft_weight * others**2
        rounds = choice_losses(logits, logps.mask)
        supervised = -logps.policy[:, 0]  # eq 9
        metrics = {
            **preference_metrics(scores, logps.mask),
            **logp_metrics(logps.policy, logps.mask),
            **_round_metrics(rounds.detach(), logps.mask),
            "nll_loss": supervised.detach(),
        }
        return LossOutput(rounds.sum(dim=1) + weight * supervised, metrics)  # eqs 11 and 12


def _temperatures(rewards: Tensor, mask: Tensor) -> Tensor:
    """``[batch, rounds, ranks]``: T_i = r_k - r_i of round k for each worse i, and T_k = max_i T_i."""
    import torch

    gaps = rewards[:, :, None] - rewards[:, None, :]
    ranks = torch.arange(rewards.shape[1], device=rewards.device)
    worse = (ranks[:, None] < ranks) & mask[:, None, :]  # [batch, rounds, ranks]
    largest = gaps.masked_fill(~worse, -torch.inf).amax(dim=2)
    largest = largest.masked_fill(~worse.any(dim=2), 0.0)  # a round of one response
    return torch.where(ranks[:, None] == ranks, largest[:, :, None], gaps)


def _round_metrics(rounds: Tensor, mask: Tensor) -> dict[str, Tensor]:
    last = int(mask.sum(dim=1).max()) - 1  # the longest list's number of rounds
    exist = mask[:, 1:]  # round k needs a response of rank k + 1
    return {
        f"pro/rank_{k + 1}_loss": rounds[:, k].masked_fill(~exist[:, k], float("nan")) for k in range(last)
    }
