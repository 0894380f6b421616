"""Figures of a pairwise comparison. Rates come with Wilson intervals, preferences with an exact sign test."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from scipy.stats._result_classes import BinomTestResult

Winner = Literal["a", "tie", "b"]
Side = Literal["left", "tie", "right"]
CONFIDENCE = 0.95


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


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of raters on the same pairs; null where it is not defined, with the reason."""

    pairs: int  # pairs with two or more votes
    krippendorff_alpha: float | None
    cohen_kappa: float | None
    reason: str


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
    p_value = float(_binomial_test(winners["a"], decided).pvalue) if decided else None
    return Outcome(
        n=len(votes),
        win=rate(winners["a"], len(votes)),
        tie=rate(winners["tie"], len(votes)),
        lose=rate(winners["b"], len(votes)),
        sign_test=SignTest(decided, p_value),
        left=rate(sides["left"], sides["left"] + sides["right"]),
    )


def by_subset(judgments: Sequence[Judgment], subsets: Iterable[str]) -> dict[str, Outcome]:
    """The outcome of each subset of the study, also of those without votes."""
    return {subset: outcome(v for v in judgments if v.subset == subset) for subset in subsets}


def by_aspect(judgments: Sequence[Judgment]) -> dict[str, Outcome]:
    """The outcome of each aspect."""
    return {aspect: outcome(filter(belongs, judgments)) for aspect, belongs in ASPECTS.items()}


def agreement(judgments: Iterable[Judgment]) -> Agreement:
    """Krippendorff's alpha over all raters, and Cohen's kappa where exactly two rated pairs in common."""
    by_item: dict[str, dict[str, Winner]] = defaultdict(dict)
    for vote in judgments:
        by_item[vote.item][vote.rater] = vote.winner
    shared = [votes for votes in by_item.values() if len(votes) > 1]
    if not shared:
        return Agreement(0, None, None, "no pair was rated by two raters")
    raters = sorted({rater for votes in shared for rater in votes})
    alpha = krippendorff_alpha([list(votes.values()) for votes in shared])
    kappa = None
    if len(raters) == 2:
        kappa = cohen_kappa([(votes[raters[0]], votes[raters[1]]) for votes in shared])
    reason = "" if alpha is not None else "every vote on a shared pair is the same; agreement is not defined"
    return Agreement(len(shared), alpha, kappa, reason)


def krippendorff_alpha(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Krippendorff's alpha for nominal values ("Computing Krippendorff's Alpha-Reliability", 2011).

    ``units``: the values that each unit received, one per rater who rated it; units with fewer than two
    values do not count. None where all values are equal, so that no disagreement could be expected.
    """
    coincidences: dict[tuple[Hashable, Hashable], float] = defaultdict(float)  # o_ck, within units
    for values in units:
        for pair in permutations(values, 2):
            coincidences[pair] += 1 / (len(values) - 1)
    totals: dict[Hashable, float] = defaultdict(float)  # n_c
    for (value, _), weight in coincidences.items():
        totals[value] += weight
    n = sum(totals.values())
    observed = sum(weight for (one, other), weight in coincidences.items() if one != other)
    expected = sum(totals[one] * totals[other] for one, other in permutations(totals, 2))
    if expected == 0:
        return None
    return 1 - (n - 1) * observed / expected


def cohen_kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Cohen's kappa of two raters over the units that both rated; None where it is not defined."""
    n = len(pairs)
    firsts, seconds = Counter(first for first, _ in pairs), Counter(second for _, second in pairs)
    chance = sum(firsts[value] * seconds[value] for value in firsts) / n**2 if n else 1.0
    if chance == 1:
        return None
    return (sum(first == second for first, second in pairs) / n - chance) / (1 - chance)


def _binomial_test(successes: int, n: int) -> BinomTestResult:
    """Exact test of "the probability is 1/2"."""
    from scipy.stats import binomtest  # takes longer to import than the rest of the service

    return binomtest(successes, n, 0.5)
