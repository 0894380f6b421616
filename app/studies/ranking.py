"""Strengths of more than two systems: Bradley-Terry, ties as half wins, intervals over prompts (ADR 80)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.studies.bootstrap import resampled_sums
from app.studies.clusters import CONFIDENCE
from app.studies.statistics import POINTS, Judgment

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOLERANCE, _LONGEST, _ITERATIONS = 1e-9, 1.0, 200
_PRIOR = 0.5  # a tie of every two systems: no strength is infinite, whoever never lost


@dataclass(frozen=True, slots=True)
class Strength:
    """A system's log strength, 0 on average over the systems; e to a difference is the odds of a win."""

    system: int
    strength: float
    interval: tuple[float, float] | None  # 95%, bootstrap over prompts; null with fewer than two prompts
    votes: int


def strengths(judgments: Sequence[Judgment], systems: int) -> list[Strength]:
    """Every system's strength, the strongest first; none where there is no vote."""
    if not judgments:
        return []
    wins = _wins_by_prompt(judgments, systems)
    found = bradley_terry(wins.sum(axis=0))
    low, high = None, None
    if len(wins) > 1:
        resampled = bradley_terry(resampled_sums(wins))
        tail = 100 * (1 - CONFIDENCE) / 2
        low, high = np.percentile(resampled, [tail, 100 - tail], axis=0)
    votes = wins.sum(axis=(0, 1)) + wins.sum(axis=(0, 2))
    return [
        Strength(
            system=int(system),
            strength=float(found[system]),
            interval=None if low is None or high is None else (float(low[system]), float(high[system])),
            votes=round(float(votes[system])),
        )
        for system in np.argsort(-found, kind="stable")
    ]


def bradley_terry(wins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log strengths [..., systems] of wins [..., winner, loser], by Newton's method.

    Maximises the likelihood of ``wins`` and of one tie between every two systems, which is concave; steps are
    at most ``_LONGEST`` long.
    """
    systems = wins.shape[-1]
    wins = wins + _PRIOR * (1 - np.eye(systems))
    met = wins + np.swapaxes(wins, -1, -2)  # [..., systems, systems]
    logs = np.zeros(wins.shape[:-1])
    for _ in range(_ITERATIONS):
        chance = 1 / (1 + np.exp(logs[..., None, :] - logs[..., :, None]))  # that the row's system wins
        slope = (wins - met * chance).sum(axis=-1)
        weight = met * chance * (1 - chance)
        # Only differences matter: the ones keep the sum of the strengths at 0.
        curvature = weight.sum(axis=-1)[..., None] * np.eye(systems) - weight + 1 / systems
        step = np.linalg.solve(curvature, slope[..., None])[..., 0]
        longest = np.abs(step).max(axis=-1, keepdims=True)
        logs = logs + step * np.minimum(1, _LONGEST / np.maximum(longest, _LONGEST))
        if longest.max() < _TOLERANCE:
            break
    return logs


def _wins_by_prompt(judgments: Sequence[Judgment], systems: int) -> NDArray[np.float64]:
    """Wins [prompt, winner, loser]; a tie is half a win of each."""
    prompts: dict[tuple[str, str], int] = {}
    numbers = [prompts.setdefault((vote.subset, vote.prompt), len(prompts)) for vote in judgments]
    wins = np.zeros((len(prompts), systems, systems))
    for number, vote in zip(numbers, judgments, strict=True):
        a, b = vote.systems
        share = POINTS[vote.winner]
        wins[number, a, b] += share
        wins[number, b, a] += 1 - share
    return wins
