"""Figures of a pairwise comparison. Rates come with Wilson intervals, preferences with an exact sign test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

from app.studies.clusters import CONFIDENCE, Cast, LengthControlled, WinRate, length_controlled, win_rate

Winner = Literal["a", "tie", "b"]
Side = Literal["left", "tie", "right"]
POINTS: dict[Winner, float] = {"a": 1.0, "tie": 0.5, "b": 0.0}


@dataclass(frozen=True, slots=True)
class Judgment:
    """A rater's standing vote on a pair, unblinded."""

    item: str
    subset: str
    rater: str
    side: Side
    winner: Winner
    prompt: str = ""  # the sample's id; several items can have one prompt
    systems: tuple[int, int] = (0, 1)  # positions of a and b
    longer: int = 0  # characters of a's response more than of b's


ASPECTS: dict[str, Callable[[Judgment], bool]] = {
    "harmless": lambda vote: vote.subset.startswith("harmless"),
    "helpful": lambda vote: vote.subset.startswith("helpful"),
    "total": lambda vote: True,
}
"""Which votes tell of what: subsets are pooled by the start of their name, as in Fig. 3."""


@dataclass(frozen=True, slots=True)
class Rate:
    """``count`` of ``n``, its share and the share's 95% Wilson interval; both are null where n is 0."""

    count: int
    n: int
    share: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class SignTest:
    """Two-sided exact test of "a and b are preferred equally often"; ties are left out of ``n``."""

    n: int
    p_value: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How often system a won, tied and lost against b over ``n`` votes."""

    n: int
    win: Rate
    tie: Rate
    lose: Rate
    sign_test: SignTest
    left: Rate  # votes for the left side among those for a side; far from 1/2 is a position bias
    win_rate: WinRate  # over raters and pairs
    length_controlled: LengthControlled


def rate(count: int, n: int) -> Rate:
    """A share with its Wilson score interval."""
    from scipy.special import ndtri  # not scipy.stats, which takes a second and more to import

    if n == 0:
        return Rate(count, n, None, None)
    share, z = count / n, float(ndtri((1 + CONFIDENCE) / 2))
    scale = 1 + z**2 / n
    centre = (share + z**2 / (2 * n)) / scale
    reach = z * sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / scale
    low = centre - reach if count else 0.0
    high = centre + reach if count < n else 1.0
    return Rate(count, n, share, (low, high))


def sign_test(wins: int, losses: int) -> SignTest:
    """The sign test without ties: twice the smaller tail of a fair coin's binomial."""
    from scipy.special import bdtr

    decided = wins + losses
    if not decided:
        return SignTest(decided, None)
    return SignTest(decided, min(1.0, 2 * float(bdtr(min(wins, losses), decided, 0.5))))


def outcome(judgments: Iterable[Judgment]) -> Outcome:
    """Win, tie and lose of system a over these votes."""
    votes = list(judgments)
    winners = Counter(vote.winner for vote in votes)
    sides = Counter(vote.side for vote in votes)
    cast = [Cast(POINTS[vote.winner], vote.rater, vote.item) for vote in votes]
    return Outcome(
        n=len(votes),
        win=rate(winners["a"], len(votes)),
        tie=rate(winners["tie"], len(votes)),
        lose=rate(winners["b"], len(votes)),
        sign_test=sign_test(winners["a"], winners["b"]),
        left=rate(sides["left"], sides["left"] + sides["right"]),
        win_rate=win_rate(cast),
        length_controlled=length_controlled(cast, [vote.longer for vote in votes]),
    )


def by_subset(judgments: Sequence[Judgment], subsets: Iterable[str]) -> dict[str, Outcome]:
    """The outcome of each subset of the study, also of those without votes."""
    return {subset: outcome(v for v in judgments if v.subset == subset) for subset in subsets}


def by_aspect(judgments: Sequence[Judgment]) -> dict[str, Outcome]:
    """The outcome of each aspect."""
    return {aspect: outcome(filter(belongs, judgments)) for aspect, belongs in ASPECTS.items()}
