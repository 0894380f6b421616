"""The term ``- omega R_dis`` of eq 18; omega is set by the share of the gradient it gives, and judged by it.

The share is ``omega`` times ``distribution_reward.gradient_share``: the norm of the term's gradient at the
hidden states that feed the head, over that of the base loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

from deft_engine.distribution_reward import gradient_share, sample_rewards
from deft_engine.errors import DataError
from deft_engine.heads import output_head
from deft_engine.logps import RankedLogps
from deft_engine.losses.output import LossOutput
from deft_engine.spec_sections import Scale
from deft_engine.world import ALONE, World

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

NO_EFFECT = 1e-4
TAKES_OVER = 0.5
_SUGGESTED = 0.03


@dataclass(slots=True)
class DistributionTerm:
    """The distribution reward's part of a loss."""

    q_diff: Tensor  # [vocab], on the model's device
    scale: Scale
    on: Literal["chosen", "all"]
    held_share: float | None
    """The share that omega is corrected to hold; None: omega stays as it was set."""
    omega: float
    measure_every: int
    """Steps between two measurements of the share; the first step is always measured."""
    world: World = ALONE
    shares: list[float] = field(default_factory=list)
    """The shares measured so far."""

    def subtract_from(
        self, base: LossOutput, model: PreTrainedModel, logps: RankedLogps, step: int, weight: float = 1.0
    ) -> LossOutput:
        """The loss of eq 18; ``weight`` is 0 for a batch that does not count."""
        r_dis = self._rewards(model, logps)
        metrics = {**base.metrics, "deft/r_dis": r_dis.detach()}
        loss = base.loss - self.omega * r_dis  # eq 18
        if step == 1 or step % self.measure_every == 0:
            share = self.omega * gradient_share(logps, base.loss.sum(), r_dis.sum(), self.world, weight)
            if math.isfinite(share):  # it is not where the base loss is saturated and has no gradient left
                self.shares.append(share)
                metrics["deft/grad_share"] = torch.full_like(r_dis.detach(), share)
                metrics["deft/omega"] = torch.full_like(r_dis.detach(), self.omega)
                self._correct(share)
        return LossOutput(loss, metrics)

    def unit_share(self, base: LossOutput, model: PreTrainedModel, logps: RankedLogps) -> float:
        """The share on a batch if omega were 1."""
        return gradient_share(logps, base.loss.sum(), self._rewards(model, logps).sum())

    @property
    def mean_share(self) -> float | None:
        """The mean of the measured shares; None where the base loss never had a gradient."""
        return sum(self.shares) / len(self.shares) if self.shares else None

    def _rewards(self, model: PreTrainedModel, logps: RankedLogps) -> Tensor:
        """``[batch]``"""
        return sample_rewards(logps, output_head(model), self.q_diff, self.scale, self.on)

    def _correct(self, share: float) -> None:
        """Go half of the way to the held share, at most a factor of two: one batch is noisy."""
        if self.held_share is not None and share > 0:
            self.omega *= min(2.0, max(0.5, math.sqrt(self.held_share / share)))


def omega_for_share(share: float, unit_shares: Sequence[float]) -> float:
    """The omega that gives the distribution reward ``share`` of the base loss's gradient.

    Args:
        share: the share asked for.
        unit_shares: the shares that omega = 1 has on some batches.

    Raises:
        DataError: one of the two gradients is zero, so that no omega gives the share.
    """
    unit_share = sum(unit_shares) / len(unit_shares)
    if not 0 < unit_share < math.inf:
        zero = "distribution reward" if unit_share == 0 else "base loss"
        raise DataError(
            f"the gradient of the {zero} is zero on the first batches: no omega gives a share of {share:g}",
            hint="give deft.omega as a number",
        )
    return share / unit_share


def share_warnings(omega: float, shares: Sequence[float]) -> list[str]:
    """What a reader of the result must be told about the shares that were measured.

    The mean tells of a term without effect; the greatest tells of one that takes over, since a share that
    grows from 3% to 80% has a harmless mean.
    """
    if not shares:
        return []
    mean, greatest = sum(shares) / len(shares), max(shares)
    share = greatest if greatest > TAKES_OVER else mean
    if NO_EFFECT <= share <= TAKES_OVER:
        return []
    found = "has no effect" if share < NO_EFFECT else "takes over"
    better = f", here an omega of about {omega * _SUGGESTED / share:.2g}" if share else ""
    return [
        f"omega {omega:.3g} {found}: the distribution reward gives up to {share:.2g} of the base loss's "
        f"gradient; "
        f'set deft.omega to {{"grad_share": {_SUGGESTED}}}{better}'
    ]
