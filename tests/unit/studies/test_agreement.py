"""Agreement against tables printed in the literature, hand computations and a plain bootstrap."""

from __future__ import annotations

import random

import numpy as np
import pytest

from app.studies.agreement import agreement, cohen_kappa, krippendorff_alpha, krippendorff_interval
from app.studies.statistics import Judgment, Winner


def judged(winner: Winner, item: str, rater: str = "r") -> Judgment:
    return Judgment(item, "s", rater, "tie", winner)


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
        judged("a", "1", "x"), judged("a", item="1", rater="y"),
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


def test_the_interval_of_alpha_is_that_of_a_plain_bootstrap_over_pairs() -> None:
    """Alpha of each draw by its definition for two raters: 1 - observed / expected disagreement."""
    dice = random.Random(5)
    units = [(one, one if dice.random() < 0.7 else dice.choice("atb")) for one in dice.choices("atb", k=60)]

    def alpha_of_two(drawn: list[tuple[str, str]]) -> float:
        values = [value for unit in drawn for value in unit]
        observed = sum(one != other for one, other in drawn) / len(drawn)
        same = sum(values.count(value) * (values.count(value) - 1) for value in set(values))
        return 1 - observed / (1 - same / (len(values) * (len(values) - 1)))

    drawn = [alpha_of_two(dice.choices(units, k=60)) for _ in range(4000)]
    expected = np.percentile(drawn, [2.5, 97.5])
    assert krippendorff_interval(units) == pytest.approx(expected, abs=0.02)
    assert krippendorff_alpha(units) == pytest.approx(alpha_of_two(units), abs=1e-12)


def test_alpha_of_one_pair_has_no_interval() -> None:
    assert krippendorff_interval([("a", "b")]) is None
    assert agreement([judged("a", "1", "x"), judged("b", "1", "y")]).krippendorff_interval is None
