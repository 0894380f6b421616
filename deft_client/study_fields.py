"""What a study is made of, as the keywords of ``studies.create`` and ``studies.plan``."""

from __future__ import annotations

from typing import Any, Required, TypedDict


class GoldPair(TypedDict):
    """A pair with a known answer; ``prompt`` is a text or the turns of a conversation."""

    prompt: str | list[dict[str, Any]]
    better: str
    worse: str


class StudyFields(TypedDict, total=False):
    """The fields of ``POST /studies``; what is left out has the service's default."""

    name: Required[str]
    a: str
    b: str
    systems: list[str]
    per_subset: int
    pairs_per_prompt: int
    protocol: str
    raters_per_pair: int | None
    repeats: float
    gold: list[GoldPair]
    gold_share: float
    tutorial: int | None
    criteria: str
    texts: str
    seed: int
