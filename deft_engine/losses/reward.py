"""Bradley-Terry loss of the reward model (eq 1)."""

from __future__ import annotations

from typing import ClassVar, Literal

from deft_engine.base import Spec


class BradleyTerry(Spec):
    """-log sigmoid(r_i - r_j), averaged over all pairs i better than j of a ranked sample."""

    needs_reference: ClassVar[bool] = False

    name: Literal["reward"] = "reward"
