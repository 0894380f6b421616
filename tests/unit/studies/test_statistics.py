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
    agreement,
    by_aspect,
    by_subset,
    cohen_kappa,
    krippendorff_alpha,
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


def test_krippendorffs_own_example() -> None:
    """Krippendorff (2011), example C: four observers, 12 units, missing values; nominal alpha = 0.743."""
    missing = None
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, missing, missing, missing],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, missing, 3],
        [missing, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, missing],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, missing],
    ]
    units = [[value for value in column if value is not missing] for column in zip(*table, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_alpha_is_not_defined_without_variation() -> None:
    assert krippendorff_alpha([["a", "a"], ["a", "a"]]) is None
    assert krippendorff_alpha([["a"], ["b"]]) is None


def test_cohens_kappa_of_a_textbook_table() -> None:
    """50 proposals, both yes 20, both no 15, only the first yes 5, only the second yes 10: kappa 0.4."""
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert cohen_kappa(pairs) == pytest.approx(0.4)
    assert cohen_kappa([("y", "y")] * 3) is None
    assert cohen_kappa([]) is None


def test_agreement_uses_shared_pairs_alone() -> None:
    votes = [
        judged("a", item="1", rater="x"), judged("a", item="1", rater="y"),
        judged("b", item="2", rater="x"), judged("tie", item="2", rater="y"),
        judged("b", item="3", rater="x"),
    ]  # fmt: skip
    found = agreement(votes)
    assert found.pairs == 2
    # By hand: values a a | b tie; observed disagreement 2 of 4 ordered pairs; expected (16 - 4 - 1 - 1) / 12.
    assert found.krippendorff_alpha == pytest.approx(1 - (2 / 4) / (10 / 12))
    assert found.cohen_kappa == pytest.approx((1 / 2 - 1 / 4) / (1 - 1 / 4))


def test_kappa_needs_exactly_two_raters() -> None:
    votes = [judged(w, item=i, rater=r) for i, w in (("1", "a"), ("2", "b")) for r in ("x", "y", "z")]
    found = agreement(votes)
    assert found.krippendorff_alpha == pytest.approx(1.0)
    assert found.cohen_kappa is None


def test_agreement_of_one_rater_says_why_it_is_not_there() -> None:
    found = agreement([judged("a", item="1"), judged("b", item="2")])
    assert (found.pairs, found.krippendorff_alpha, found.cohen_kappa) == (0, None, None)
    assert "two raters" in found.reason
