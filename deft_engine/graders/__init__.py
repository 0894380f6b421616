"""Graders: what gives each response a reward. Each is a small frozen model, listed once here."""

from typing import Annotated

from pydantic import Field

from deft_engine.graders.file_scores import FileScores
from deft_engine.graders.random_scores import RandomScores
from deft_engine.graders.reward_model import RewardModelGrader

GRADERS = (RewardModelGrader, FileScores, RandomScores)
"""Every grader; a new one is one file and one entry here."""

Grader = Annotated[RewardModelGrader | FileScores | RandomScores, Field(discriminator="name")]

__all__ = ["GRADERS", "FileScores", "Grader", "RandomScores", "RewardModelGrader"]
