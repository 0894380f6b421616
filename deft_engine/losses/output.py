"""What every loss returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class LossOutput(NamedTuple):
    """A loss and its figures per sample; the mean over the samples of a step is the trainer's work."""

    loss: Tensor  # [batch], under autograd
    metrics: dict[str, Tensor]  # TRL's names -> [batch], detached; NaN where a sample has no such figure
