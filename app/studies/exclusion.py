"""Whose votes do not count by the rules that were frozen with the study (ADR 89)."""

from __future__ import annotations

from dataclasses import dataclass

FEWEST = 5
"""Answers that a rule needs of a rater: with fewer, a share tells about chance and not about the rater."""


@dataclass(frozen=True, slots=True)
class Rules:
    """When a rater's votes are left out of the figures after exclusion; null: no such rule."""

    min_gold_accuracy: float | None = None
    min_repeat_consistency: float | None = None
    min_seconds: float | None = None  # median of a vote
    max_left_rate_deviation: float | None = None  # of the left side's share from 1/2

    @property
    def any(self) -> bool:
        """Whether there is a rule."""
        return self != Rules()


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a rater: shares, null where there is no answer, and over how many answers."""

    gold: tuple[float | None, int]
    repeats: tuple[float | None, int]
    seconds: tuple[float | None, int]
    left: tuple[float | None, int]


def broken(rules: Rules, rater: Measured) -> list[str]:
    """The rules that a rater breaks, by name."""
    left, sides = rater.left
    deviation = None if left is None else abs(left - 0.5)
    found = {
        "min_gold_accuracy": _below(*rater.gold, rules.min_gold_accuracy),
        "min_repeat_consistency": _below(*rater.repeats, rules.min_repeat_consistency),
        "min_seconds": _below(*rater.seconds, rules.min_seconds),
        "max_left_rate_deviation": rules.max_left_rate_deviation is not None
        and deviation is not None
        and sides >= FEWEST
        and deviation > rules.max_left_rate_deviation,
    }
    return [name for name, breaks in found.items() if breaks]


def _below(value: float | None, answers: int, least: float | None) -> bool:
    return least is not None and value is not None and answers >= FEWEST and value < least
