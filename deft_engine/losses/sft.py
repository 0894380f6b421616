"""Supervised fine-tuning on the best response (eq 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from deft_engine.losses.output import LossOutput
from deft_engine.losses.policy_loss import PolicyLoss

if TYPE_CHECKING:
    from deft_engine.logps import RankedLogps


class SFT(PolicyLoss):
    """Negative log-likelihood of y_1: its sum over tokens (the paper, eq 9) or its mean."""

    name: Literal["sft"] = "sft"
    reduction: Literal["sum", "mean"] = "sum"
    """``sum`` over the tokens of a response, as eq 9; ``mean`` divides by their number."""

    def needed(self, order: Sequence[int]) -> Sequence[int]:
        """Of a sample's responses, best first, those that the loss looks at: the best."""
        return order[:1]

    def __call__(self, logps: RankedLogps) -> LossOutput:
        """Loss ``[batch]``; only rank 0 is looked at."""
        chosen = logps.policy[:, 0]
        loss = -chosen  # eq 9: - sum_t log P(y_1,t | x, y_1,<t)
        if self.reduction == "mean":
            loss = loss / logps.lengths[:, 0]
        return LossOutput(loss, {"logps/chosen": chosen.detach()})
