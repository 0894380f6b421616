"""Reward of generations under r_eval (section 4.3)."""

from __future__ import annotations

from typing import ClassVar, Literal

from deft_engine.base import Spec


class Reward(Spec):
    """Mean of 100 x sigmoid(score) of r_eval, and the raw mean."""

    needs_model: ClassVar[bool] = True

    name: Literal["reward"] = "reward"
