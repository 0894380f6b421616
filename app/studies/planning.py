"""Dry runs: what a study would ask of its raters, and what it could see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from app.studies.design import StudyDesign, pairs_of
from app.studies.power import ALPHA, POWER, pairs_needed, sight
from app.studies.sampling import Planned

_ASSUMPTIONS = (
    "the test is the two-sided exact sign test without ties, each comparison by itself",
    "a pair counts once however many raters judge it, as their votes are not independent",
)


class Sighted(BaseModel):
    """What so many pairs can see."""

    model_config = ConfigDict(from_attributes=True)

    pairs: int
    """Of any two systems; the fewest, where there are more than two."""
    power: float
    """To see the win rate that was asked about."""
    win_rate: float | None
    """The smallest that is seen with 80% power; null where none is."""


class Power(BaseModel):
    """The power of the comparison of any two systems, at the win rate and share of ties asked about."""

    win_rate: float
    ties: float
    alpha: float
    power: float
    pairs_needed: int
    """Pairs that show ``win_rate`` with this power."""
    total: Sighted
    subsets: dict[str, Sighted]


class StudyPlan(BaseModel):
    """What a study would be. Nothing is frozen yet, and no answer was read."""

    object: Literal["study.plan"] = "study.plan"
    systems: list[str]
    subsets: dict[str, int]
    """Pairs of each subset."""
    votes: int | None
    """Votes that count, without repeats, gold and tutorial; null where every rater judges every pair."""
    power: Power
    assumptions: list[str]


def plan_study(design: StudyDesign, pairs: Sequence[Planned], win_rate: float, ties: float) -> StudyPlan:
    """The plan of a study whose sample is chosen."""
    subsets = Counter(pair.subset for pair in pairs)
    raters = 1 if design.protocol == "paper" else design.raters_per_pair
    votes = None if raters is None else raters * len(pairs)

    def seen(among: Sequence[Planned]) -> Sighted:
        counts = Counter((pair.system_a, pair.system_b) for pair in among)
        fewest = min(counts[pair] for pair in pairs_of(design.systems))
        return Sighted.model_validate(sight(fewest, win_rate, ties))

    return StudyPlan(
        systems=list(design.systems),
        subsets=dict(subsets),
        votes=votes,
        power=Power(
            win_rate=win_rate,
            ties=ties,
            alpha=ALPHA,
            power=POWER,
            pairs_needed=pairs_needed(win_rate, ties),
            total=seen(pairs),
            subsets={subset: seen([pair for pair in pairs if pair.subset == subset]) for subset in subsets},
        ),
        assumptions=list(_ASSUMPTIONS),
    )
