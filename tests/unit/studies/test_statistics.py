"""The figures against values computed by hand, from other formulas, or printed in the literature."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from app.studies.statistics import (
    Judgment,
    Side,
    Winner,
    by_aspect,
    by_subset,
    outcome,
    rate,
)

LEFT_WHEN_A_IS_LEFT: dict[str, Side] = {"a": "left", "tie": "tie", "b": "right"}


def judged(
    winner: Winner, item: str = "i", subset: str = "s", rater: str = "r", a_left: bool = True
) -> Judgment:
    side = LEFT_WHEN_A_IS_LEFT[winner]
    if not a_left and side != "tie":
        side = "right" if side == "left" else "left"
    return Judgment(item, subset, rater, side, winner)


@given(n=st.integers(1, 500), data=st.data())
def test_rate_has_wilsons_interval(n: int, data: st.DataObject) -> None:
    """Wilson (1927), written out: the roots of (p - share)^2 = z^2 p (1 - p) / n."""
    count = data.draw(st.integers(0, n))
    z = norm.ppf(0.975)
    share = count / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    found = rate(count, n)
    assert found.share == share
    assert found.interval == pytest.approx((centre - half, centre + half), abs=1e-9)


def test_rate_of_nothing_is_null() -> None:
    found = rate(0, 0)
    assert found.share is None
    assert found.interval is None


@given(wins=st.integers(0, 60), ties=st.integers(0, 20), losses=st.integers(0, 60))
def test_sign_test_sums_the_tails_of_a_fair_coin(wins: int, ties: int, losses: int) -> None:
    votes = [judged("a")] * wins + [judged("tie")] * ties + [judged("b")] * losses
    found = outcome(votes)
    decided = wins + losses
    assert found.sign_test.n == decided
    if decided == 0:
        assert found.sign_test.p_value is None
        return
    one_tail = binom.cdf(min(wins, losses), decided, 0.5)
    assert found.sign_test.p_value == pytest.approx(min(1.0, 2 * one_tail), abs=1e-9)


def test_outcome_counts_wins_of_a_and_votes_for_the_left() -> None:
    votes = [
        judged("a", a_left=True),
        judged("a", a_left=False),
        judged("a", a_left=False),
        judged("b", a_left=True),
        judged("tie"),
    ]
    found = outcome(votes)
    assert (found.win.count, found.tie.count, found.lose.count, found.n) == (3, 1, 1, 5)
    assert (found.left.count, found.left.n) == (1, 4)


def test_aspects_pool_subsets_by_the_start_of_their_name() -> None:
    votes = [
        judged("a", subset="harmless-base"),
        judged("b", subset="helpful-base"),
        judged("tie", subset="helpful-online"),
        judged("a", subset="helpful-rejection"),
        judged("b", subset="other"),
    ]
    found = by_aspect(votes)
    assert {name: one.n for name, one in found.items()} == {"harmless": 1, "helpful": 3, "total": 5}
    assert found["helpful"].win.count == 1
    assert {name: one.n for name, one in by_subset(votes, ["other", "unvoted"]).items()} == {
        "other": 1,
        "unvoted": 0,
    }
