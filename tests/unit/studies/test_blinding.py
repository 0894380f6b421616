"""Sides: balanced at every moment, and a fair coin otherwise."""

from __future__ import annotations

from scipy.stats import binomtest

from app.studies.blinding import a_stands_left, draw


def sides(length: int) -> list[bool]:
    dealt: list[bool] = []
    for _ in range(length):
        dealt.append(a_stands_left(dealt.count(True), dealt.count(False)))
    return dealt


def test_counts_never_differ_by_more_than_one() -> None:
    for _ in range(50):
        dealt = sides(21)
        for length in range(1, 22):
            left = dealt[:length].count(True)
            assert abs(left - (length - left)) <= 1


def test_each_place_in_the_order_is_a_fair_coin() -> None:
    """Over many raters no place in the order favours a side (exact test, a false alarm in a million)."""
    runs = [sides(10) for _ in range(4000)]
    for place in range(10):
        left = sum(run[place] for run in runs)
        assert binomtest(left, len(runs)).pvalue > 1e-7, (place, left)


def test_draw_takes_each_candidate_equally_often() -> None:
    counts = [0, 0, 0, 0]
    for _ in range(8000):
        counts[draw(range(4))] += 1
    assert all(binomtest(count, 8000, 0.25).pvalue > 1e-7 for count in counts), counts
