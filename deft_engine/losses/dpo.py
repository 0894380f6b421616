"""Direct preference optimisation (eqs 5-6), and its forms for lists (Rafailov et al. 2023, appendix A.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from deft_engine.losses.output import LossOutput
from deft_engine.losses.policy_loss import PolicyLoss
from deft_engine.losses.ranks import (
    choice_losses,
    logp_metrics,
    mean_over,
    pair_differences,
    preference_metrics,
    worst,
)

if TYPE_CHECKING:
    from torch import Tensor

    from deft_engine.logps import RankedLogps


class DPO(PolicyLoss):
    """-log sigmoid of the scaled difference of log-ratios of a pair, plus ``sft_weight`` x eq 9."""

    needs_reference: ClassVar[bool] = True

    name: Literal["dpo"] = "dpo"
    beta: float = Field(0.1, gt=0, le=100)
    """Strength of the pull to the reference (eq 6; Appendix A.1: 0.1)."""
    pairs: Literal["best_worst", "all", "plackett_luce"] = "best_worst"
    """Of a list: y_1 against y_l; the mean over all pairs; or the likelihood of the whole ranking."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of pairs taken to be annotated the wrong way round (conservative DPO)."""
    sft_weight: float = Field(0.05, ge=0, le=100)
    """Weight of the SFT term on y_1 (Appendix A.1: 5e-2)."""

    @model_validator(mode="after")
    def _smoothing_is_of_pairs(self) -> DPO:
        if self.label_smoothing and self.pairs == "plackett_luce":
            raise ValueError(
                "label_smoothing is of pairs, and pairs is plackett_luce, which has none; "
                "set label_smoothing to 0, or pairs to best_worst or all"
            )
        return self

    def needed(self, order: Sequence[int]) -> Sequence[int]:
        """Of a sample's responses, best first, those that the loss looks at: best and worst, or all."""
        return (order[0], order[-1]) if self.pairs == "best_worst" else order

    def __call__(self, logps: RankedLogps) -> LossOutput:
        """Loss ``[batch]``.

        Raises:
            ValueError: ``logps.reference`` is None.
        """
        if logps.reference is None:
            raise ValueError("DPO needs the reference's log-probabilities (RankedLogps.with_reference)")
        rewards = self.beta * (logps.policy - logps.reference)  # [batch, ranks]: beta log pi(y|x)/pi_ref(y|x)
        metrics = preference_metrics(rewards, logps.mask) | logp_metrics(logps.policy, logps.mask)
        if self.pairs == "plackett_luce":
            rounds = rewards[:, None, :].expand(-1, rewards.shape[1], -1)
            preference = choice_losses(rounds, logps.mask).sum(dim=1)
        elif self.pairs == "all":
            z, exist = pair_differences(rewards, logps.mask)
            preference = mean_over(self._of_pairs(z), exist)
        else:
            z = rewards[:, 0] - worst(rewards, logps.mask)  # eq 6
            preference = self._of_pairs(z)
            metrics["rewards/accuracies"] = (z.detach() > 0).to(z.dtype)
        supervised = -logps.policy[:, 0]  # eq 9
        return LossOutput(preference + self.sft_weight * supervised, metrics)

    def _of_pairs(self, z: Tensor) -> Tensor:
        """Eq 5 of each pair, of any shape; smoothed: its expectation over the two orders."""
        from torch.nn.functional import logsigmoid

        loss = -logsigmoid(z)
        if self.label_smoothing:
            loss = (1 - self.label_smoothing) * loss - self.label_smoothing * logsigmoid(-z)
        return loss
