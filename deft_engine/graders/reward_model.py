"""Rewards from a reward model (section 3.1: r_train)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from deft_engine.base import ModelName, Spec


class RewardModelGrader(Spec):
    """r(x, y) of a reward model."""

    needs_model: ClassVar[bool] = True

    name: Literal["reward_model"] = "reward_model"
    model: ModelName
    """The reward model: ``job:<id>``, a path or a hub id."""
    revision: str | None = Field(None, max_length=200)
    scope: Literal["needed", "all"] = "needed"
    """``needed``: where l = 2 and the annotated order rules, only y_1 is scored; ``all``: every response."""
