"""How far raters agree on the same pairs, corrected for chance; intervals by a bootstrap over pairs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.studies.bootstrap import resampled_sums
from app.studies.clusters import CONFIDENCE
from app.studies.statistics import Judgment, Winner

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of raters on the same pairs; null where it is not defined, with the reason."""

    pairs: int  # pairs with two or more votes
    krippendorff_alpha: float | None
    krippendorff_interval: tuple[float, float] | None  # 95%, bootstrap over pairs; null below two pairs
    cohen_kappa: float | None
    reason: str


def agreement(judgments: Iterable[Judgment]) -> Agreement:
    """Krippendorff's alpha over all raters, and Cohen's kappa where exactly two rated pairs in common."""
    by_item: dict[str, dict[str, Winner]] = defaultdict(dict)
    for vote in judgments:
        by_item[vote.item][vote.rater] = vote.winner
    shared = [votes for votes in by_item.values() if len(votes) > 1]
    if not shared:
        return Agreement(0, None, None, None, "no pair was rated by two raters")
    raters = sorted({rater for votes in shared for rater in votes})
    units = [list(votes.values()) for votes in shared]
    alpha = krippendorff_alpha(units)
    kappa = None
    if len(raters) == 2:
        kappa = cohen_kappa([(votes[raters[0]], votes[raters[1]]) for votes in shared])
    reason = "" if alpha is not None else "every vote on a shared pair is the same; agreement is not defined"
    interval = krippendorff_interval(units) if alpha is not None else None
    return Agreement(len(shared), alpha, interval, kappa, reason)


def krippendorff_alpha(units: Sequence[Sequence[Hashable]]) -> float | None:
    """Krippendorff's alpha for nominal values ("Computing Krippendorff's Alpha-Reliability", 2011).

    ``units``: the values that each unit received, one per rater who rated it; units with fewer than two
    values do not count. None where all values are equal, so that no disagreement could be expected.
    """
    coincidences = _coincidences(units)
    found = float(_alpha(coincidences.sum(axis=0))) if len(coincidences) else np.nan
    return None if np.isnan(found) else found


def krippendorff_interval(units: Sequence[Sequence[Hashable]]) -> tuple[float, float] | None:
    """The 95% percentile interval of alpha over units drawn with replacement; None for fewer than two units.

    A draw in which all values are equal tells nothing and does not count.
    """
    coincidences = _coincidences(units)  # [units, values, values]
    if len(coincidences) < 2:
        return None
    alphas = _alpha(resampled_sums(coincidences))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(alphas[~np.isnan(alphas)], [tail, 100 - tail])
    return float(low), float(high)


def cohen_kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Cohen's kappa of two raters over the units that both rated; None where it is not defined."""
    n = len(pairs)
    firsts, seconds = Counter(first for first, _ in pairs), Counter(second for _, second in pairs)
    chance = sum(firsts[value] * seconds[value] for value in firsts) / n**2 if n else 1.0
    if chance == 1:
        return None
    return (sum(first == second for first, second in pairs) / n - chance) / (1 - chance)


def _coincidences(units: Sequence[Sequence[Hashable]]) -> NDArray[np.float64]:
    """Of each unit with two values or more, o_ck: [units, values, values]."""
    counted = [values for values in units if len(values) > 1]
    numbers: dict[Hashable, int] = {}
    for values in counted:
        for value in values:
            numbers.setdefault(value, len(numbers))
    times = np.zeros((len(counted), len(numbers)))
    for unit, values in enumerate(counted):
        for value in values:
            times[unit, numbers[value]] += 1
    pairs = times[:, :, None] * times[:, None, :] - times[:, :, None] * np.eye(len(numbers))
    return np.asarray(pairs / (times.sum(axis=1) - 1)[:, None, None])


def _alpha(coincidences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Alpha [...] of summed coincidences [..., values, values]; NaN where no disagreement is expected."""
    totals = coincidences.sum(axis=-1)  # n_c
    n = totals.sum(axis=-1)
    observed = n - np.trace(coincidences, axis1=-2, axis2=-1)
    expected = n**2 - (totals**2).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(expected > 0, 1 - (n - 1) * observed / expected, np.nan))
