"""Figures of a pairwise comparison. Rates come with Wilson intervals, preferences with an exact sign test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from app.studies.clusters import CONFIDENCE, Cast, LengthControlled, WinRate, length_controlled, win_rate

if TYPE_CHECKING:
    from scipy.stats._result_classes import BinomTestResult

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
    if n == 0:
        return Rate(count, n, None, None)
    interval = _binomial_test(count, n).proportion_ci(CONFIDENCE, method="wilson")
    return Rate(count, n, count / n, (float(interval.low), float(interval.high)))


def outcome(judgments: Iterable[Judgment]) -> Outcome:
    """Win, tie and lose of system a over these votes."""
    votes = list(judgments)
    winners = Counter(vote.winner for vote in votes)
    sides = Counter(vote.side for vote in votes)
    decided = winners["a"] + winners["b"]
    cast = [Cast(POINTS[vote.winner], vote.rater, vote.item) for vote in votes]
    p_value = float(_binomial_test(winners["a"], decided).pvalue) if decided else None
    return Outcome(
        n=len(votes),
        win=rate(winners["a"], len(votes)),
        tie=rate(winners["tie"], len(votes)),
        lose=rate(winners["b"], len(votes)),
        sign_test=SignTest(decided, p_value),
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


def _binomial_test(successes: int, n: int) -> BinomTestResult:
    """Exact test of "the probability is 1/2"."""
    from scipy.stats import binomtest  # takes longer to import than the rest of the service

    return binomtest(successes, n, 0.5)
