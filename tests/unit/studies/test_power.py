"""The power of the sign test against plain sums over every count, and against a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from app.studies.power import pairs_needed, power, sight, smallest_win_rate


def plain_power(pairs: int, win_rate: float, ties: float) -> float:
    """Every number of decided votes and of wins, by the test's own p-value."""
    total = 0.0
    for decided in range(pairs + 1):
        rejected = sum(
            binom.pmf(wins, decided, win_rate)
            for wins in range(decided + 1)
            if decided and binomtest(wins, decided).pvalue <= 0.05
        )
        total += binom.pmf(decided, pairs, 1 - ties) * rejected
    return total


@pytest.mark.parametrize(("pairs", "win_rate", "ties"), [(5, 0.9, 0.0), (20, 0.8, 0.0), (30, 0.7, 0.3)])
def test_power_is_the_plain_sum(pairs: int, win_rate: float, ties: float) -> None:
    assert power(pairs, win_rate, ties) == pytest.approx(plain_power(pairs, win_rate, ties), abs=1e-9)


def test_power_is_what_a_simulation_finds() -> None:
    generator = np.random.default_rng(0)
    decided = generator.binomial(300, 0.8, size=4000)
    wins = generator.binomial(decided, 0.6)
    p_values = {(w, d): binomtest(int(w), int(d)).pvalue for w, d in set(zip(wins, decided, strict=True))}
    rejected = np.mean([p_values[one] <= 0.05 for one in zip(wins, decided, strict=True)])
    # four standard errors of the simulation
    assert power(300, 0.6, 0.2) == pytest.approx(rejected, abs=4 * np.sqrt(0.25 / 4000))


@pytest.mark.parametrize(("win_rate", "ties"), [(0.9, 0.0), (0.75, 0.0), (0.6, 0.0), (0.75, 0.3), (0.6, 0.2)])
def test_needed_pairs_are_the_first_from_which_power_stays(win_rate: float, ties: float) -> None:
    needed = pairs_needed(win_rate, ties)
    following = [power(pairs, win_rate, ties) for pairs in range(needed, 2 * needed + 50)]
    assert min(following) >= 0.8
    assert power(needed - 1, win_rate, ties) < 0.8


def test_needed_pairs_are_near_the_normal_approximation() -> None:
    """n = ((z_0.975 / 2 + z_0.8 sqrt(p q)) / (p - 1/2))^2 without ties."""
    for win_rate in (0.55, 0.6, 0.7):
        spread = np.sqrt(win_rate * (1 - win_rate))
        expected = ((1.959964 / 2 + 0.841621 * spread) / (win_rate - 0.5)) ** 2
        assert 0.95 < pairs_needed(win_rate, 0.0) / expected < 1.25


def test_the_smallest_win_rate_is_seen_and_none_below_it() -> None:
    for pairs, ties in ((125, 0.2), (500, 0.0)):
        smallest = smallest_win_rate(pairs, ties)
        assert smallest is not None
        assert power(pairs, smallest, ties) >= 0.8 > power(pairs, smallest - 2e-4, ties)


def test_few_pairs_see_nothing() -> None:
    found = sight(5, 0.9, 0.0)
    assert (found.power, found.win_rate) == (0.0, None)
