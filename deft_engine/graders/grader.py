"""What every grader says of itself; the plan and the stage ``grade`` ask nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Self

from deft_engine.base import Spec

if TYPE_CHECKING:
    from deft_engine.stages import RankBy

Responses = Literal["first", "all", "best", "ends"]
"""Which responses get a reward. ``first``: of two y_1, else all; ``best``: y_1; ``ends``: y_1 and y_l."""

SampleScore = Literal["best", "first", "margin", "closeness"]
"""What of its responses' rewards grades a sample, the highest being Level A.

``best``: that of y_1 where l = 2, else the highest (section 3.1); ``first``: that of y_1; ``margin``: the
best response's minus the worst one's; ``closeness``: minus that.
"""

INPUT = "@input"
"""Stands for a model's name in the spec of the stage ``score``: the model is an input of the stage."""


class ModelInput(NamedTuple):
    """A model that a grader works with, an input of the stage ``score``."""

    input: str
    name: str | None = None
    """None: the job's own model."""
    field: str = ""
    """The grader's field that names it."""
    revision: str | None = None


class BaseGrader(Spec):
    """Base of all graders. One that gives rewards also has ``score``, see ``ScoringContext``."""

    needs_model: ClassVar[bool] = False
    """It loads a model, and then tells its own progress."""
    needs_qdiff: ClassVar[bool] = False
    """It works with Q_diff, which is counted before it scores."""
    ranks: ClassVar[bool] = True
    """Its rewards tell which of a sample's responses is better. Else the annotated order stands."""

    @property
    def sample_score(self) -> SampleScore:
        """How a sample's score follows from the rewards."""
        return "best" if self.ranks else "first"

    def responses(self, rank_by: RankBy) -> Responses:
        """Which responses need a reward."""
        return "all" if self.ranks else "best"

    def models(self) -> tuple[ModelInput, ...]:
        """The models it works with."""
        return ()

    def scorer(self) -> Self:
        """The grader as the stage ``score`` gets it: without what only grading reads, and without names."""
        return self
