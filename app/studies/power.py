"""How many pairs show a preference: the exact power of the two-sided sign test, ties left out.

``win_rate`` is how often a is preferred where the vote is for a side, ``ties`` the share of other votes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALPHA = 0.05
POWER = 0.8
_FINEST = 1e-4  # of a win rate
_SMOOTH = 3  # decided votes, standard deviation: steps, which are two votes long, are gone in the mean
_SPREAD = 8  # standard deviations, beyond which a count of decided votes has no weight


@dataclass(frozen=True, slots=True)
class Sight:
    """What so many pairs can see."""

    pairs: int
    power: float  # of the win rate that was asked about
    win_rate: float | None  # the smallest that is seen with 80% power; null where none is


def sight(pairs: int, win_rate: float, ties: float) -> Sight:
    """The power of ``pairs`` judged pairs, and the smallest win rate that they show with 80% power."""
    return Sight(pairs, power(pairs, win_rate, ties), smallest_win_rate(pairs, ties))


def power(pairs: int, win_rate: float, ties: float) -> float:
    """Probability that the test rejects "preferred equally often", over the number of decided votes."""
    from scipy.stats import binom  # takes longer to import than the rest of the service

    centre, spread = pairs * (1 - ties), _SPREAD * sqrt(pairs * ties * (1 - ties))
    low, high = max(0, int(centre - spread)), min(pairs, ceil(centre + spread))
    decided = np.arange(low, high + 1)
    weights = binom.pmf(decided, pairs, 1 - ties)
    return float(weights @ _power_of_decided(decided, win_rate))


def pairs_needed(win_rate: float, ties: float) -> int:
    """The smallest number of pairs from which on the power for ``win_rate`` is at least 80%.

    Power rises in steps and falls a little between them, where ties do not smooth the steps: the search ends
    beyond the last fall.
    """
    low, high = 0, 1
    while power(high, win_rate, ties) < POWER:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, win_rate, ties) >= POWER else (middle, high)
    if sqrt(high * ties * (1 - ties)) > _SMOOTH:
        return high
    falls = [n for n in range(high, high + 20 + int(3 * sqrt(high))) if power(n, win_rate, ties) < POWER]
    return falls[-1] + 1 if falls else high


def smallest_win_rate(pairs: int, ties: float) -> float | None:
    """The smallest win rate that ``pairs`` pairs show with 80% power, rounded up to 0.0001."""
    if power(pairs, 1.0, ties) < POWER:
        return None
    low, high = 0.5, 1.0
    while high - low > _FINEST / 2:
        middle = (low + high) / 2
        low, high = (low, middle) if power(pairs, middle, ties) >= POWER else (middle, high)
    return round(ceil(high / _FINEST) * _FINEST, 4)


def _power_of_decided(decided: NDArray[np.int_], win_rate: float) -> NDArray[np.float64]:
    """Power for each number of decided votes: losses or wins are at most the critical value."""
    from scipy.stats import binom

    critical = binom.ppf(ALPHA / 2, decided, 0.5)  # the smallest count whose tail is not below alpha / 2
    critical = np.where(binom.cdf(critical, decided, 0.5) > ALPHA / 2, critical - 1, critical)
    return np.asarray(binom.cdf(critical, decided, 1 - win_rate) + binom.cdf(critical, decided, win_rate))
