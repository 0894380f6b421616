"""What a researcher sends to make a study."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from app.studies.creation import CRITERIA
from app.studies.design import GoldPair, Protocol, StudyDesign, Texts
from deft_engine.base import Name, Spec, Text
from deft_engine.errors import SpecError


class Turn(Spec):
    """A turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


class NewGoldPair(Spec):
    """A pair with a known answer."""

    prompt: Annotated[Text, StringConstraints(min_length=1)] | Annotated[list[Turn], Field(min_length=1)]
    """What was asked: a text, or the turns of a conversation."""
    better: Text
    worse: Text

    def frozen(self) -> GoldPair:
        """As it is stored."""
        turns = [Turn(role="user", content=self.prompt)] if isinstance(self.prompt, str) else self.prompt
        return GoldPair([turn.model_dump() for turn in turns], self.better, self.worse)


class NewStudy(Spec):
    """A comparison of the answers of jobs that were evaluated on the same dataset."""

    name: Name
    a: Name | None = None
    """The first of two jobs; wins and losses are told from its side."""
    b: Name | None = None
    systems: list[Name] | None = Field(None, min_length=2, max_length=12)
    """The jobs, instead of `a` and `b`: two or more."""
    per_subset: int = Field(125, ge=1, le=100_000)
    """Prompts of each subset (the paper: 125); where fewer are there, all are used, with a warning."""
    pairs_per_prompt: int = Field(1, ge=1, le=66)
    """Pairs of systems that each prompt is judged on."""
    protocol: Protocol = "paper"
    """``paper``: each subset has its own annotator. ``rigorous``: annotators may overlap."""
    raters_per_pair: int | None = Field(None, ge=1, le=100)
    """Raters of each pair under ``rigorous``; null: every rater of the subset."""
    repeats: float = Field(0.0, ge=0, le=0.5)
    """Share of a rater's pairs that they are given a second time, later, with the sides swapped."""
    gold: list[NewGoldPair] = Field([], max_length=1000)
    """Pairs with a known answer: the tutorial takes some, the others are hidden among the pairs."""
    gold_share: float = Field(0.1, gt=0, le=0.5)
    """Hidden gold pairs for each of a rater's pairs."""
    tutorial: int | None = Field(None, ge=0, le=20)
    """Gold pairs shown first, with feedback after the vote; null: 5 where there is gold."""
    criteria: Annotated[Text, StringConstraints(min_length=1, max_length=4000)] = CRITERIA
    """What raters are asked; shown with every pair."""
    texts: Texts = "plain"
    """How raters see prompts and answers: as they are, or ``markdown`` without links and images."""
    seed: int = Field(42, ge=0, le=2**32 - 1)
    """Chooses the prompts and their systems. The sides are drawn from the system's randomness."""

    def design(self) -> StudyDesign:
        """The design that this asks for.

        Raises:
            SpecError: the systems are not named in one of the two ways.
        """
        two = self.a is not None or self.b is not None
        if two == (self.systems is not None) or (two and None in (self.a, self.b)):
            raise SpecError(
                "a study needs the jobs that it compares",
                hint="name them as a and b, or as a list of systems",
                pointer="/systems" if self.systems is not None else "/a" if self.a is None else "/b",
            )
        systems = tuple(self.systems or filter(None, (self.a, self.b)))
        default_tutorial = 5 if self.gold else 0
        return StudyDesign(
            name=self.name,
            systems=systems,
            places=("/a", "/b") if two else tuple(f"/systems/{number}" for number in range(len(systems))),
            per_subset=self.per_subset,
            pairs_per_prompt=self.pairs_per_prompt,
            protocol=self.protocol,
            raters_per_pair=self.raters_per_pair,
            repeats=self.repeats,
            gold=tuple(pair.frozen() for pair in self.gold),
            gold_share=self.gold_share,
            tutorial=default_tutorial if self.tutorial is None else self.tutorial,
            criteria=self.criteria,
            texts=self.texts,
            seed=self.seed,
        )
