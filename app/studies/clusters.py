"""Win rates of votes that belong together: a rater's votes, and the votes on a pair (ADR 91).

Variances are clustered both ways: Cameron, Gelbach and Miller, "Robust Inference with Multiway Clustering"
(2011).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIDENCE = 0.95
_ITERATIONS, _TOLERANCE = 50, 1e-10
_LARGEST = 15.0  # a coefficient beyond which the likelihood has no maximum that means anything

ONE_RATER = "all votes are one rater's: how raters differ cannot be seen"
ONE_PAIR = "all votes are on one pair: how pairs differ cannot be seen"
ALL_EQUAL = "all votes are the same; see the interval of the share"


@dataclass(frozen=True, slots=True)
class Cast:
    """A vote: 1 for a, 0 for b, 1/2 for a tie."""

    points: float
    rater: str
    pair: str


@dataclass(frozen=True, slots=True)
class WinRate:
    """The share of wins, a tie being half a win, with a 95% interval for other raters and other pairs.

    Where the interval is null, ``reason`` says why.
    """

    share: float | None
    interval: tuple[float, float] | None
    raters: int
    reason: str


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """The win rate between answers of one length: a logistic regression on the difference in characters."""

    share: float | None
    interval: tuple[float, float] | None  # 95%, clustered as in WinRate
    log_odds_per_100: float | None  # what 100 characters more add to the log odds of a win
    reason: str


def win_rate(votes: Sequence[Cast]) -> WinRate:
    """The mean of the votes' points, with an interval over raters and pairs."""
    if not votes:
        return WinRate(None, None, 0, "there is no vote")
    points = np.array([vote.points for vote in votes])
    share, raters = float(points.mean()), len({vote.rater for vote in votes})
    if reason := _no_interval(votes):
        return WinRate(share, None, raters, reason)
    reach = margin(votes, (points - share) / len(votes))
    return WinRate(share, (max(0.0, share - reach), min(1.0, share + reach)), raters, "")


def length_controlled(votes: Sequence[Cast], longer: Sequence[int]) -> LengthControlled:
    """``longer``: of each vote, by how many characters a's answer is longer than b's."""
    points = np.array([vote.points for vote in votes])
    lengths = np.array(longer, dtype=np.float64)
    if len(set(longer)) < 2:
        return LengthControlled(None, None, None, "there are not two different lengths to compare")
    scale = float(np.sqrt((lengths**2).mean()))
    inputs = np.column_stack([np.ones(len(votes)), lengths / scale])  # [votes, 2]
    fitted = logistic(inputs, points)
    if fitted is None:
        return LengthControlled(None, None, None, "length separates wins from losses: no odds can be told")
    slope = 100 * float(fitted[1]) / scale
    share = float(_sigmoid(fitted[0]))
    if reason := _no_interval(votes):
        return LengthControlled(share, None, slope, reason)
    chance = _sigmoid(inputs @ fitted)
    information = (inputs * (chance * (1 - chance))[:, None]).T @ inputs  # [2, 2]
    influence = ((inputs * (points - chance)[:, None]) @ np.linalg.inv(information))[:, 0]
    reach = margin(votes, influence)
    interval = (float(_sigmoid(fitted[0] - reach)), float(_sigmoid(fitted[0] + reach)))
    return LengthControlled(share, interval, slope, "")


def margin(votes: Sequence[Cast], influence: NDArray[np.float64]) -> float:
    """Half the length of a 95% interval of an estimate; ``influence``: what each vote adds to its error.

    Student's t has one degree of freedom less than there are raters or pairs, whichever are fewer. Never
    shorter than if raters, pairs or votes alone were independent: few clusters can cancel by chance.
    """
    from scipy.special import stdtrit  # not scipy.stats, which takes a second and more to import

    raters, by_rater = _sums([vote.rater for vote in votes], influence)
    pairs, by_pair = _sums([vote.pair for vote in votes], influence)
    alone = float((influence**2).sum())
    clusters = min(raters, pairs)
    variance = max(by_rater + by_pair - alone, by_rater, by_pair, alone) * clusters / (clusters - 1)
    return float(stdtrit(clusters - 1, (1 + CONFIDENCE) / 2) * np.sqrt(variance))


def logistic(inputs: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Coefficients [k] of a logistic regression of shares [n] on inputs [n, k]; None without a maximum."""
    fitted: NDArray[np.float64] = np.zeros(inputs.shape[1])
    for _ in range(_ITERATIONS):
        chance = _sigmoid(inputs @ fitted)
        curvature = (inputs * (chance * (1 - chance))[:, None]).T @ inputs
        if np.linalg.cond(curvature) > 1 / np.finfo(np.float64).eps:
            return None
        step = np.linalg.solve(curvature, inputs.T @ (shares - chance))
        fitted += step * min(1.0, 1 / max(float(np.abs(step).max()), _TOLERANCE))
        if np.abs(fitted).max() > _LARGEST:
            return None
        if np.abs(step).max() < _TOLERANCE:
            return fitted
    return None


def _no_interval(votes: Sequence[Cast]) -> str:
    """Why there can be no interval; empty where there is one."""
    if len({vote.rater for vote in votes}) < 2:
        return ONE_RATER
    if len({vote.pair for vote in votes}) < 2:
        return ONE_PAIR
    return ALL_EQUAL if len({vote.points for vote in votes}) == 1 else ""


def _sums(clusters: Sequence[str], influence: NDArray[np.float64]) -> tuple[int, float]:
    """How many clusters there are, and the sum of the squares of their sums."""
    _, numbers = np.unique(clusters, return_inverse=True)
    sums = np.bincount(numbers, weights=influence)
    return len(sums), float((sums**2).sum())


def _sigmoid(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-value)))
