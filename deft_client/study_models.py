"""What the service answers about studies, typed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from deft_client.models import Answer, SampleMessage


class Study(Answer):
    """A blind comparison of jobs; ``a`` and ``b`` where there are two, ``systems`` are all."""

    id: str
    name: str
    status: str
    systems: list[str] = Field(default_factory=list)
    a: str | None = None
    b: str | None = None
    subsets: dict[str, int] = Field(default_factory=dict)
    protocol: str = ""
    raters_per_pair: int | None = None
    pairs_per_prompt: int = 1
    repeats: float = 0.0
    gold: int = 0
    gold_share: float = 0.0
    tutorial: int = 0
    criteria: str = ""
    exclusion: dict[str, float | None] = Field(default_factory=dict)
    results: str = "open"
    interim_looks: int = 0
    boundary: str = ""
    alphas: list[float] = Field(default_factory=list)
    manifest_sha256: str = ""
    warnings: list[str] = Field(default_factory=list)
    unblinded_at: datetime | None = None


class Opinion(Answer):
    """A vote on a pair; ``winner`` is ``a``, ``tie`` or ``b``."""

    rater: str
    winner: str
    comment: str | None = None
    harmful: bool = False


class StudyPair(Answer):
    """A pair that a study's raters judge; ``id`` is its number in the study."""

    id: int
    sample_id: str
    subset: str
    a: str
    b: str
    prompt: list[dict[str, Any]]
    response_a: str
    response_b: str


class Disagreement(StudyPair):
    """A pair on which raters differ."""

    votes: list[Opinion]


class StudyVerdict(Answer):
    """Which answer a judge prefers (``a``, ``tie`` or ``b``) in each order."""

    pair: int
    a_first: str
    b_first: str


class JudgeState(Answer):
    """A judge of a study, and how many pairs it has judged."""

    judge: str
    pairs: int


class Look(Answer):
    """A planned interim look: the total of a against b; ``crossed`` when the study can end with it."""

    number: int
    of: int
    wins: int
    ties: int
    losses: int
    p_value: float | None = None
    alpha: float
    crossed: bool


class Sight(Answer):
    """What so many pairs can see: power for the win rate asked about, and the smallest one seen with 80%."""

    pairs: int
    power: float
    win_rate: float | None = None


class Power(Answer):
    """The power of a study's design."""

    win_rate: float
    ties: float
    alpha: float
    power: float
    pairs_needed: int
    total: Sight
    subsets: dict[str, Sight]


class StudyPlan(Answer):
    """What a dry run says of a study: its pairs, the votes they need, and what they can see."""

    systems: list[str]
    subsets: dict[str, int]
    votes: int | None = None
    power: Power
    assumptions: list[str] = Field(default_factory=list)


class Annotator(Answer):
    """A rater; ``key`` and ``link`` are there once, in the answer that created them."""

    id: str
    name: str
    subsets: list[str]
    key: str | None = None
    link: str | None = None
    revoked: bool = False
    excluded: bool = False
    done: int = 0
    total: int | None = None


class RenewedLink(Answer):
    """A rater's new personal link, shown this once."""

    id: str
    name: str
    link: str


class Assignment(Answer):
    """A pair to compare: all that a rater is told."""

    id: str
    prompt: list[SampleMessage]
    left: str
    right: str
    criteria: str
    done: int
    total: int
    tutorial: bool = False


class TutorialFeedback(Answer):
    """Whether a vote in the tutorial is the one that was expected."""

    agreed: bool
    better: str


class VoteAnswer(Answer):
    """The vote that stands; ``feedback`` is there in the tutorial."""

    id: str
    choice: str
    feedback: TutorialFeedback | None = None
