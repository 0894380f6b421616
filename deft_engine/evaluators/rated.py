"""What an evaluator sees."""

from __future__ import annotations

from typing import NamedTuple

from deft_engine.types import Generation, Score


class Rated(NamedTuple):
    """A generation and its reward under r_eval, null where no reward model was asked."""

    generation: Generation
    reward: float | None


NO_SAMPLES = "there are no samples"


def no_value(n: int, signature: str, reason: str) -> Score:
    """A figure that could not be computed, with the reason."""
    return Score(None, n, signature, reason)
