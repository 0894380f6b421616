"""Reward of generations under r_eval (section 4.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from deft_engine.base import Spec
from deft_engine.evaluators.rated import NO_SAMPLES, Measure, Rated, no_value
from deft_engine.types import Score

_SIGNATURES = {"reward": "reward|100*sigmoid(r)|mean|v:1", "reward_raw": "reward|raw|mean|v:1"}


class Reward(Spec):
    """Mean of 100 x sigmoid(score) of r_eval, and the raw mean."""

    needs: ClassVar[tuple[Measure, ...]] = ("reward",)
    figures: ClassVar[tuple[str, ...]] = ("reward", "reward_raw")

    name: Literal["reward"] = "reward"

    def __call__(self, answers: Sequence[Rated]) -> dict[str, Score]:
        """``reward`` in percent, and ``reward_raw`` in the reward model's own unit."""
        each = self.per_answer(answers)
        return {name: _mean(each[name], signature) for name, signature in _SIGNATURES.items()}

    def per_answer(self, answers: Sequence[Rated]) -> dict[str, list[float | None]]:
        """Each answer's part of both means."""
        raw = [answer.reward for answer in answers]
        percent = [None if reward is None else in_percent(reward) for reward in raw]
        return {"reward": percent, "reward_raw": raw}


def in_percent(reward: float) -> float:
    """``100 * sigmoid(reward)``"""
    return 50 * (1 + math.tanh(reward / 2))


def _mean(values: Sequence[float | None], signature: str) -> Score:
    known = [value for value in values if value is not None]
    if not values:
        return no_value(0, signature, NO_SAMPLES)
    if len(known) < len(values):
        return no_value(len(values), signature, f"{len(values) - len(known)} answers have no reward")
    strange = sum(not math.isfinite(value) for value in known)
    if strange:
        return no_value(
            len(values), signature, f"the reward model gave {strange} rewards that are not finite"
        )
    return Score(math.fsum(known) / len(known), len(known), signature)
