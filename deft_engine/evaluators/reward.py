"""Reward of generations under r_eval (section 4.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

from deft_engine.base import Spec
from deft_engine.evaluators.rated import NO_SAMPLES, Rated, no_value
from deft_engine.types import Score


class Reward(Spec):
    """Mean of 100 x sigmoid(score) of r_eval, and the raw mean."""

    needs_model: ClassVar[bool] = True
    figures: ClassVar[tuple[str, ...]] = ("reward", "reward_raw")

    name: Literal["reward"] = "reward"

    def __call__(self, answers: Sequence[Rated]) -> dict[str, Score]:
        """``reward`` in percent, and ``reward_raw`` in the reward model's own unit."""
        return {
            "reward": _mean(answers, lambda r: 50 * (1 + math.tanh(r / 2)), "reward|100*sigmoid(r)|mean|v:1"),
            "reward_raw": _mean(answers, lambda r: r, "reward|raw|mean|v:1"),
        }


def _mean(answers: Sequence[Rated], transform: Callable[[float], float], signature: str) -> Score:
    rewards = [answer.reward for answer in answers]
    known = [reward for reward in rewards if reward is not None]
    if not answers:
        return no_value(0, signature, NO_SAMPLES)
    if len(known) < len(rewards):
        return no_value(len(answers), signature, f"{len(rewards) - len(known)} answers have no reward")
    strange = sum(not math.isfinite(reward) for reward in known)
    if strange:
        return no_value(
            len(answers), signature, f"the reward model gave {strange} rewards that are not finite"
        )
    return Score(math.fsum(map(transform, known)) / len(known), len(known), signature)
