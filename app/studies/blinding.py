"""Which side each system stands on: balanced at every moment, drawn from the system's randomness."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


def a_stands_left(times_left: int, times_right: int) -> bool:
    """Side of system a in a rater's next pair of a subset, given how often it stood on each side there.

    Even counts: a fair coin that nobody can foresee or recompute. Otherwise the side it had less often, so
    that the counts never differ by more than one, wherever the rater stops.
    """
    if times_left == times_right:
        return bool(secrets.randbits(1))
    return times_left < times_right


def draw(candidates: Sequence[_T]) -> _T:
    """One of the pairs that a rater has not seen, each equally likely: the order tells nothing either."""
    return secrets.choice(candidates)
