"""What every loss that trains a policy has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from deft_engine.base import Spec
from deft_engine.losses.output import LossOutput

if TYPE_CHECKING:
    from deft_engine.logps import RankedLogps


class PolicyLoss(Spec):
    """A method: its fields are the hyper-parameters, calling it gives the loss of a batch.

    The defaults are those of a loss on all responses of a sample that needs nothing else.
    """

    needs_reference: ClassVar[bool] = False
    """Whether it looks at ``RankedLogps.reference``; a plan then has the stage ``reference``."""

    @property
    def needs_rewards(self) -> bool:
        """Whether it looks at ``RankedLogps.rewards``; samples are then ranked by their rewards."""
        return False

    def needed(self, order: Sequence[int]) -> Sequence[int]:
        """Of a sample's responses, best first, those that the loss looks at: all of them."""
        return order

    @abstractmethod
    def __call__(self, logps: RankedLogps) -> LossOutput:
        """Loss ``[batch]``; what is masked has no part in it."""
