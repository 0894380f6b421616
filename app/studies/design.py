"""What a researcher asks of a study, and what cannot be asked together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deft_engine.errors import SpecError

Protocol = Literal["paper", "rigorous"]
Texts = Literal["plain", "markdown"]


@dataclass(frozen=True, slots=True)
class GoldPair:
    """A pair with a known answer."""

    prompt: list[dict[str, str]]
    better: str
    worse: str


@dataclass(frozen=True, slots=True)
class StudyDesign:
    """What a researcher asks for; ``systems`` are jobs, ``places`` where the request names them."""

    name: str
    systems: tuple[str, ...]
    places: tuple[str, ...]  # JSON pointers
    per_subset: int
    pairs_per_prompt: int
    protocol: Protocol
    raters_per_pair: int | None
    repeats: float
    gold: tuple[GoldPair, ...]
    gold_share: float
    tutorial: int
    criteria: str
    seed: int
    texts: Texts = "plain"


def check_design(design: StudyDesign) -> None:
    """Refuse what cannot be asked together.

    Raises:
        SpecError: with the place.
    """
    for number, (system, place) in enumerate(zip(design.systems, design.places, strict=True)):
        if system in design.systems[:number]:
            raise SpecError(
                f"{system} is named twice: two systems are the same job",
                hint="name different jobs to compare",
                pointer=place,
            )
    pairs = pairs_of(design.systems)
    if design.pairs_per_prompt > len(pairs):
        raise SpecError(
            f"{len(design.systems)} systems make {len(pairs)} pairs, pairs_per_prompt is "
            f"{design.pairs_per_prompt}",
            hint=f"ask for at most {len(pairs)}",
            pointer="/pairs_per_prompt",
        )
    if design.protocol == "paper":
        _refuse_rigour(design)
    elif design.tutorial > len(design.gold):
        raise SpecError(
            f"the tutorial takes {design.tutorial} pairs, gold has {len(design.gold)}",
            hint="give more gold pairs, or ask for a shorter tutorial",
            pointer="/tutorial",
        )


def pairs_of(systems: Sequence[object]) -> list[tuple[int, int]]:
    """Every pair of positions of systems, the lower first."""
    return [(a, b) for a in range(len(systems)) for b in range(a + 1, len(systems))]


def _refuse_rigour(design: StudyDesign) -> None:
    """The paper's protocol has one rater per pair, and neither repeats nor gold."""
    asked = {
        "raters_per_pair": design.raters_per_pair not in (None, 1),
        "repeats": design.repeats > 0,
        "gold": bool(design.gold),
        "tutorial": design.tutorial > 0,
    }
    for field, wanted in asked.items():
        if wanted:
            raise SpecError(
                f"the protocol 'paper' has no {field}: each pair is judged once, by its subset's annotator",
                hint="ask for the protocol 'rigorous'",
                pointer=f"/{field}",
            )
