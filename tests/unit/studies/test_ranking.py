"""Bradley-Terry strengths against scipy's optimiser, closed forms and known answers."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import minimize

from app.studies.ranking import bradley_terry, strengths
from app.studies.statistics import Judgment, Winner


def judged(winner: Winner, systems: tuple[int, int], prompt: str, subset: str = "s") -> Judgment:
    return Judgment(f"{prompt} {systems}", subset, "r", "tie", winner, prompt, systems)


def with_a_tie_each(wins: np.ndarray) -> np.ndarray:
    return wins + 0.5 * (1 - np.eye(len(wins)))


def test_two_systems_have_the_log_odds_of_their_wins() -> None:
    found = bradley_terry(np.array([[0.0, 30.0], [10.0, 0.0]]))
    assert found[0] - found[1] == pytest.approx(math.log(30.5 / 10.5), abs=1e-6)
    assert found.sum() == pytest.approx(0.0, abs=1e-9)


def test_strengths_are_where_an_optimiser_finds_the_likelihood_s_top() -> None:
    wins = np.random.default_rng(1).integers(0, 20, (5, 5)).astype(float)
    wins[3] = 0  # a system that never won
    np.fill_diagonal(wins, 0)
    counted = with_a_tie_each(wins)

    def loss(logs: np.ndarray) -> float:
        return float(
            sum(
                counted[i, j] * math.log1p(math.exp(logs[j] - logs[i]))
                for i in range(5)
                for j in range(5)
                if i != j
            )
        )

    best = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-9}).x
    assert bradley_terry(wins) == pytest.approx(best - best.mean(), abs=1e-4)


def test_a_batch_is_fitted_one_by_one() -> None:
    batch = np.random.default_rng(2).integers(0, 9, (7, 4, 4)).astype(float)
    assert bradley_terry(batch) == pytest.approx(np.stack([bradley_terry(one) for one in batch]), abs=1e-6)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    truth = np.array([0.8, 0.1, -0.2, -0.7])
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(40):
        votes = []
        for number in range(300):
            a, b = list(combinations(range(4), 2))[number % 6]
            wins = generator.random() < 1 / (1 + math.exp(truth[b] - truth[a]))
            votes.append(judged("a" if wins else "b", (a, b), str(number)))
        for one in strengths(votes, 4):
            assert one.interval is not None
            held += one.interval[0] <= truth[one.system] <= one.interval[1]
    assert 142 <= held <= 159  # of 160; 152 expected, and a lead of the binomial's 0.001 tails


def test_ties_are_half_a_win_and_votes_are_counted() -> None:
    votes = [judged("tie", (0, 1), "1"), judged("tie", (1, 2), "2"), judged("a", (0, 2), "3")]
    found = {one.system: one for one in strengths(votes, 3)}
    assert found[0].strength > found[1].strength > found[2].strength
    assert found[1].strength == pytest.approx(0.0, abs=1e-6)  # by symmetry
    assert [found[system].votes for system in range(3)] == [2, 2, 2]


def test_votes_on_one_prompt_are_resampled_together() -> None:
    """Ten votes on each of 30 prompts that agree within a prompt tell no more than 30 prompts."""
    generator = np.random.default_rng(4)
    winners: list[Winner] = ["a" if generator.random() < 0.6 else "b" for _ in range(30)]
    once = [judged(winner, (0, 1), str(number)) for number, winner in enumerate(winners)]

    def width(votes: list[Judgment]) -> float:
        interval = strengths(votes, 2)[0].interval
        assert interval is not None
        return interval[1] - interval[0]

    assert width(once * 10) > 0.9 * width(once)


def test_nothing_and_one_prompt_have_no_interval() -> None:
    assert strengths([], 3) == []
    assert [one.interval for one in strengths([judged("a", (0, 1), "1")], 3)] == [None] * 3
