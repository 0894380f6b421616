"""The rules for raters, each at its edge."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.studies.exclusion import Measured, Rules, broken

RULES = Rules(min_gold_accuracy=0.8, min_repeat_consistency=0.6, min_seconds=4.0, max_left_rate_deviation=0.2)
GOOD = Measured(gold=(0.8, 5), repeats=(0.6, 5), seconds=(4.0, 5), left=(0.69, 5))


def test_a_rater_at_the_edge_of_every_rule_is_kept() -> None:
    assert broken(RULES, GOOD) == []


@pytest.mark.parametrize(
    ("worse", "rule"),
    [
        ({"gold": (0.79, 5)}, "min_gold_accuracy"),
        ({"repeats": (0.59, 5)}, "min_repeat_consistency"),
        ({"seconds": (3.9, 5)}, "min_seconds"),
        ({"left": (0.71, 5)}, "max_left_rate_deviation"),
        ({"left": (0.29, 5)}, "max_left_rate_deviation"),
    ],
)
def test_each_rule_is_broken_alone(worse: dict[str, tuple[float, int]], rule: str) -> None:
    assert broken(RULES, replace(GOOD, **worse)) == [rule]
    assert broken(Rules(), replace(GOOD, **worse)) == []
    few = {name: (value, 4) for name, (value, _) in worse.items()}
    assert broken(RULES, replace(GOOD, **few)) == []  # four answers tell about chance


def test_a_rater_of_whom_nothing_is_known_breaks_no_rule() -> None:
    assert broken(RULES, Measured((None, 0), (None, 0), (None, 0), (None, 0))) == []
