"""Win rates over raters and pairs, against statsmodels' numbers, plain loops and simulated studies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import t

from app.studies.clusters import ALL_EQUAL, ONE_PAIR, ONE_RATER, Cast, length_controlled, margin, win_rate
from app.studies.statistics import rate

Vote = tuple[int, int, float, int]


def crossed() -> list[Vote]:
    """Rater, pair, points and difference in length of 96 votes of six raters on 20 pairs, by a fixed rule."""
    votes: list[Vote] = []
    for rater in range(6):
        for pair in range(20):
            if (rater + 2 * pair) % 5:
                leaning = [3, -2, 1, -3, 4, 0][rater] + [2, -3, 4, -1, -4][pair % 5] + (rater * pair) % 3
                points = 1.0 if leaning > 2 else 0.5 if leaning > 0 else 0.0
                votes.append((rater, pair, points, (37 * pair * pair + 11 * pair) % 401 - 190))
    return votes


def cast(votes: list[Vote]) -> list[Cast]:
    return [Cast(points, f"rater {rater}", f"pair {pair}") for rater, pair, points, _ in votes]


# By statsmodels 0.15.0 on the votes of crossed(), without its small-sample factor: OLS on a constant and
# GLM(Binomial) on a constant and the difference in hundreds of characters, with cov_cluster_2groups.
SHARE, SHARE_ERROR = 0.359375, 0.11443342
CONSTANT, SLOPE, CONSTANT_ERROR = -0.58599613, -0.12331141, 0.49238539


def test_the_interval_is_that_of_errors_clustered_by_raters_and_pairs() -> None:
    found = win_rate(cast(crossed()))
    reach = t.ppf(0.975, 5) * SHARE_ERROR * math.sqrt(6 / 5)
    assert found.share == pytest.approx(SHARE, abs=1e-7)
    assert found.interval == pytest.approx((SHARE - reach, SHARE + reach), abs=1e-6)
    assert (found.raters, found.reason) == (6, "")


def test_the_win_rate_at_equal_length_is_that_of_a_logistic_regression() -> None:
    votes = crossed()
    found = length_controlled(cast(votes), [longer for *_, longer in votes])
    reach = t.ppf(0.975, 5) * CONSTANT_ERROR * math.sqrt(6 / 5)
    ends = [1 / (1 + math.exp(-(CONSTANT + side * reach))) for side in (-1, 1)]
    assert found.share == pytest.approx(1 / (1 + math.exp(-CONSTANT)), abs=1e-6)
    assert found.interval == pytest.approx(ends, abs=1e-6)
    assert found.log_odds_per_100 == pytest.approx(SLOPE, abs=1e-6)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(0, 5), st.sampled_from([0.0, 0.5, 1.0]), st.integers(-300, 300)
        ),
        min_size=20,
        max_size=60,
    )
)
def test_the_regression_finds_the_maximum_that_an_optimiser_finds(votes: list[Vote]) -> None:
    found = length_controlled(cast(votes), [longer for *_, longer in votes])
    points = np.array([vote[2] for vote in votes])
    lengths = np.array([vote[3] for vote in votes]) / 100

    def loss(constant_and_slope: np.ndarray) -> float:
        odds = constant_and_slope[0] + constant_and_slope[1] * lengths
        return float((np.logaddexp(0, odds) - points * odds).sum())

    best = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10})
    if found.share is None:
        assert found.reason
        return
    assert found.log_odds_per_100 is not None
    here = loss(np.array([math.log(found.share / (1 - found.share)), found.log_odds_per_100]))
    assert here <= best.fun + 1e-6


def test_a_margin_counts_every_two_votes_that_share_a_rater_or_a_pair() -> None:
    votes = crossed()
    influence = np.array([vote[2] - SHARE for vote in votes]) / len(votes)
    together = sum(
        one * other
        for (rater, pair, *_), one in zip(votes, influence, strict=True)
        for (rater2, pair2, *_), other in zip(votes, influence, strict=True)
        if rater == rater2 or pair == pair2
    )
    assert margin(cast(votes), influence) == pytest.approx(
        t.ppf(0.975, 5) * math.sqrt(6 / 5 * together), rel=1e-9
    )


def test_longer_answers_that_win_by_length_alone_are_even_at_equal_length() -> None:
    """Votes follow the length alone, and a is longer: the raw win rate is high, the controlled one is 1/2."""
    dice = np.random.default_rng(2)
    longer = dice.normal(150, 150, 4000).astype(int)
    points = (dice.random(4000) < 1 / (1 + np.exp(-longer / 100))).astype(float)
    votes = [Cast(float(point), f"r{n % 8}", f"p{n}") for n, point in enumerate(points)]
    found = length_controlled(votes, longer.tolist())
    raw = win_rate(votes).share
    assert raw is not None
    assert raw > 0.7
    assert found.share == pytest.approx(0.5, abs=0.05)
    assert found.log_odds_per_100 == pytest.approx(1.0, abs=0.15)


def test_intervals_hold_the_truth_where_raters_differ_and_wilsons_does_not() -> None:
    """400 studies of 12 raters and 40 pairs, whose raters lean by their own amount; the truth is 1/2."""
    dice = np.random.default_rng(7)
    held = wilson = 0
    for _ in range(400):
        leaning = dice.normal(0, 1, 12)[:, None] + dice.normal(0, 0.7, 40)[None, :]
        wins = dice.random((12, 40)) < 1 / (1 + np.exp(-leaning))
        votes = [Cast(float(wins[r, p]), f"r{r}", f"p{p}") for r in range(12) for p in range(40)]
        interval, naive = win_rate(votes).interval, rate(int(wins.sum()), 480).interval
        assert interval is not None
        assert naive is not None
        held += interval[0] <= 0.5 <= interval[1]
        wilson += naive[0] <= 0.5 <= naive[1]
    assert 0.93 <= held / 400 <= 0.985
    assert wilson / 400 < 0.7


@pytest.mark.parametrize(
    ("votes", "reason"),
    [
        ([(0, 0, 1.0, 5), (0, 1, 0.0, 9)], ONE_RATER),
        ([(0, 0, 1.0, 5), (1, 0, 0.0, 5)], ONE_PAIR),
        ([(0, 0, 1.0, 5), (1, 1, 1.0, 9)], ALL_EQUAL),
    ],
)
def test_an_interval_that_cannot_be_is_null_with_the_reason(votes: list[Vote], reason: str) -> None:
    found = win_rate(cast(votes))
    assert found.interval is None
    assert found.reason == reason


def test_length_that_separates_wins_from_losses_has_no_odds() -> None:
    votes = [(n % 3, n, float(n > 5), n - 5) for n in range(12)]
    found = length_controlled(cast(votes), [longer for *_, longer in votes])
    assert (found.share, found.interval, found.log_odds_per_100) == (None, None, None)
    assert "separates" in found.reason


def test_no_votes_have_no_win_rate() -> None:
    assert win_rate([]).share is None
    assert length_controlled([], []).share is None
