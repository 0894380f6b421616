"""What a grader is told: the same for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deft_engine.types import Sample

if TYPE_CHECKING:  # run imports the stage table, and that the graders
    from deft_engine.events import EventWriter
    from deft_engine.run import StopRequest


@dataclass(frozen=True, slots=True)
class ScoringContext:
    """One run of the ``score`` stage, seen by its grader.

    A grader's ``score(samples, context)`` yields a list per sample, in order, with an entry per response in
    annotated order: a finite reward, or None beyond ``responses_needed``. It may call ``stop.check()`` and
    keep partial work in ``work``, which the next attempt finds again.
    """

    model: str | None
    """Uri of the reward model, for a grader that needs one."""
    responses: Literal["first", "all"]
    max_length: int
    events: EventWriter
    stop: StopRequest
    work: Path

    def responses_needed(self, sample: Sample) -> int:
        """How many responses need a reward, from the best on: with ``first`` one of two, else all."""
        return 1 if self.responses == "first" and len(sample.responses) == 2 else len(sample.responses)
