"""The reward margin r_1 - r_l of a sample: how clearly its best response is better than its worst."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from deft_engine.base import ModelName
from deft_engine.graders.file_scores import FileScores
from deft_engine.graders.grader import BaseGrader, ModelInput, SampleScore
from deft_engine.graders.reward_model import RewardModelGrader


class RewardMargin(BaseGrader):
    """Rewards of a reward model, or the file's; a sample is graded by its best one minus its worst one."""

    name: Literal["margin"] = "margin"
    model: ModelName | None = None
    """The reward model: ``job:<id>``, a path or a hub id; null takes the scores in the file."""
    revision: str | None = Field(None, max_length=200)

    @property
    def sample_score(self) -> SampleScore:
        return "margin"

    def models(self) -> tuple[ModelInput, ...]:
        rewards = self._rewards()
        return rewards.models()

    def scorer(self) -> RewardModelGrader | FileScores:  # type: ignore[override]
        """The grader whose rewards these are: what it scored before is not scored again."""
        return self._rewards().scorer()

    def _rewards(self) -> RewardModelGrader | FileScores:
        if self.model is None:
            return FileScores()
        return RewardModelGrader(model=self.model, revision=self.revision, scope="all")
