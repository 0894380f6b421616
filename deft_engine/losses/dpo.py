"""Direct preference optimisation (eqs 5-6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from deft_engine.base import Spec
from deft_engine.losses.output import LossOutput

if TYPE_CHECKING:
    from deft_engine.logps import RankedLogps


class DPO(Spec):
    """-log sigmoid of the scaled difference of log-ratios between y_1 and y_l, plus ``sft_weight`` x eq 9."""

    needs_reference: ClassVar[bool] = True

    name: Literal["dpo"] = "dpo"
    beta: float = Field(0.1, gt=0, le=100)
    """Strength of the pull to the reference (eq 6; Appendix A.1: 0.1)."""
    sft_weight: float = Field(0.05, ge=0, le=100)
    """Weight of the SFT term on y_1 (Appendix A.1: 5e-2)."""

    @staticmethod
    def needed(order: Sequence[int]) -> Sequence[int]:
        """Of a sample's responses, best first, those that the loss looks at: the best and the worst."""
        return (order[0], order[-1])

    def __call__(self, logps: RankedLogps) -> LossOutput:
        """Loss ``[batch]``; where l > 2 the best (rank 0) against the worst (the last rank).

        Raises:
            ValueError: ``logps.reference`` is None.
        """
        from torch.nn.functional import logsigmoid

        if logps.reference is None:
            raise ValueError("DPO needs the reference's log-probabilities (RankedLogps.with_reference)")
        worst = logps.mask.sum(dim=1, keepdim=True) - 1  # [batch, 1]
        log_ratios = logps.policy - logps.reference  # [batch, ranks]: log pi(y|x) / pi_ref(y|x)
        chosen_reward = self.beta * log_ratios[:, 0]
        rejected_reward = self.beta * log_ratios.gather(1, worst).squeeze(1)
        z = chosen_reward - rejected_reward  # eq 6
        preference = -logsigmoid(z)  # eq 5
        supervised = -logps.policy[:, 0]  # eq 9
        metrics = {
            "rewards/chosen": chosen_reward,
            "rewards/rejected": rejected_reward,
            "rewards/accuracies": (z > 0).to(z.dtype),
            "rewards/margins": z,
            "logps/chosen": logps.policy[:, 0],
            "logps/rejected": logps.policy.gather(1, worst).squeeze(1),
        }
        return LossOutput(
            preference + self.sft_weight * supervised,
            {name: value.detach() for name, value in metrics.items()},
        )
