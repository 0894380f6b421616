"""Bradley-Terry loss of the reward model (eq 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from deft_engine.base import Spec
from deft_engine.losses.output import LossOutput

if TYPE_CHECKING:
    from torch import Tensor


class BradleyTerry(Spec):
    """-log sigmoid(r_i - r_j), averaged over all pairs i better than j of a ranked sample."""

    needs_reference: ClassVar[bool] = False

    name: Literal["reward"] = "reward"

    def __call__(self, rewards: Tensor, mask: Tensor) -> LossOutput:
        """Loss ``[batch]``.

        Args:
            rewards: ``[batch, ranks]``, best first.
            mask: ``[batch, ranks]`` bool: there is a response of this rank; two at least in each row.
        """
        import torch
        from torch.nn.functional import logsigmoid

        better, worse = torch.triu_indices(rewards.shape[1], rewards.shape[1], 1, device=rewards.device)
        margins = rewards[:, better] - rewards[:, worse]  # [batch, pairs]
        pairs = (mask[:, better] & mask[:, worse]).to(rewards.dtype)  # [batch, pairs]
        count = pairs.sum(dim=1)
        loss = -(logsigmoid(margins) * pairs).sum(dim=1) / count  # eq 1: p(y_i > y_j) = sigmoid(r_i - r_j)
        best = rewards[:, 0]
        worst = rewards.gather(1, mask.sum(dim=1, keepdim=True) - 1).squeeze(1)
        metrics = {
            "rewards/chosen": best,
            "rewards/rejected": worst,
            "rewards/accuracies": ((margins > 0) * pairs).sum(dim=1) / count,
            "rewards/margins": best - worst,
        }
        return LossOutput(loss, {name: value.detach() for name, value in metrics.items()})
