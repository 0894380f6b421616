"""Seeded random rewards: the control that the paper lacks."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from deft_engine.base import Spec


class RandomScores(Spec):
    """Uniform in [0, 1), from the seed, the sample's id and the rank alone."""

    needs_model: ClassVar[bool] = False

    name: Literal["random"] = "random"
    seed: int = Field(42, ge=0, le=2**32 - 1)
