"""What an experiment's report says of differences, and where its figure's names stand."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest

from deft_engine.experiments.report import findings, label_heights
from deft_engine.experiments.results import Difference, Figure


def row(difference: float) -> SimpleNamespace:
    """An arm whose reward lies so far from the baseline's."""
    compared = Difference("DPO", difference, None, 0.5, 0.5, 8)
    figure = Figure(50.0, None, None, 8, 1, "reward", compared)
    return SimpleNamespace(name="PRO", baseline="DPO", subsets={}, total={"reward": figure}, cost=None)


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (0.25, "0.25 higher than DPO"),
        (-1.5, "1.50 lower than DPO"),
        (0.0, "equal, to the digits shown, to that of DPO"),
        (-0.001, "equal, to the digits shown, to that of DPO"),
    ],
)
def test_a_difference_that_no_digit_shows_is_neither_higher_nor_lower(difference: float, words: str) -> None:
    (told,) = findings([row(difference)])
    assert told == f"PRO: Reward {words}, p = 0.5 corrected: no significant difference."


def test_names_that_would_cover_one_another_stand_below_one_another() -> None:
    places = [(200.0, 50.0), (205.0, 52.0), (200.0, 50.0), (20.0, 51.0), (230.0, 60.0)]
    heights = label_heights(places)
    assert heights[3] == 51.0  # far from the others
    beside = [heights[index] for index in (0, 1, 2, 4)]
    assert min(beside) == 50.0
    assert all(lower - upper >= 11 for upper, lower in pairwise(sorted(beside)))
