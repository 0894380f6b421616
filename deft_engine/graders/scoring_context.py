"""What a grader is told: the same for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deft_engine.graders.grader import Responses
from deft_engine.types import Sample
from deft_engine.world import ALONE, World

if TYPE_CHECKING:  # run imports the stage table, and that the graders
    from deft_engine.events import EventWriter
    from deft_engine.run import StopRequest
    from deft_engine.spec_sections import Template
    from deft_engine.stages import Dtype

Rewards = list[float | None]


@dataclass(frozen=True, slots=True)
class ScoringContext:
    """One run of the ``score`` stage, seen by its grader.

    A grader's ``score(samples, context)`` yields a list per sample, in order, with an entry per response in
    annotated order: a finite reward where ``needed`` says so, else None. It may call ``stop.check()`` and
    keep partial work in ``work``, which the next attempt finds again.
    """

    inputs: Mapping[str, str]
    """The stage's inputs; those that the grader's ``models`` name are uris, ``qdiff`` is a file."""
    responses: Responses
    max_length: int
    template: Template
    """Of the job's own model."""
    dtype: Dtype
    """What a model computes in."""
    events: EventWriter
    stop: StopRequest
    work: Path
    world: World = ALONE

    def needed(self, sample: Sample) -> Sequence[int]:
        """Which responses of a sample need a reward, as indices."""
        return needed_responses(len(sample.responses), self.responses)

    def placed(self, sample: Sample, rewards: Iterable[float]) -> Rewards:
        """The needed responses' rewards at their places, None elsewhere."""
        return placed(len(sample.responses), self.needed(sample), rewards)


def needed_responses(count: int, responses: Responses) -> Sequence[int]:
    """Which of ``count`` responses need a reward, as indices in annotated order."""
    if responses == "ends":
        return (0, count - 1)
    return range(1 if responses == "best" or (responses == "first" and count == 2) else count)


def placed(count: int, needed: Sequence[int], rewards: Iterable[float]) -> Rewards:
    """``count`` entries: the rewards at the needed places, None elsewhere."""
    row: Rewards = [None] * count
    for index, reward in zip(needed, rewards, strict=True):
        row[index] = reward
    return row
