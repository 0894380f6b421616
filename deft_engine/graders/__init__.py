"""Graders: what samples are graded by. Each is a small frozen model, listed once here."""

from typing import Annotated

from pydantic import Field

from deft_engine.graders.distribution import DistributionGrader
from deft_engine.graders.file_scores import FileScores
from deft_engine.graders.implicit import ImplicitReward
from deft_engine.graders.length import ResponseLength
from deft_engine.graders.margin import RewardMargin
from deft_engine.graders.random_scores import RandomScores
from deft_engine.graders.reward_model import RewardModelGrader

GRADERS = (
    RewardModelGrader,
    FileScores,
    DistributionGrader,
    RewardMargin,
    ImplicitReward,
    ResponseLength,
    RandomScores,
)
"""Every grader; a new one is one file and one entry here."""

Scorer = Annotated[
    RewardModelGrader | FileScores | DistributionGrader | ImplicitReward | ResponseLength | RandomScores,
    Field(discriminator="name"),
]
"""The graders that give rewards themselves."""

Grader = Annotated[
    RewardModelGrader
    | FileScores
    | DistributionGrader
    | RewardMargin
    | ImplicitReward
    | ResponseLength
    | RandomScores,
    Field(discriminator="name"),
]

__all__ = [
    "GRADERS",
    "DistributionGrader",
    "FileScores",
    "Grader",
    "ImplicitReward",
    "RandomScores",
    "ResponseLength",
    "RewardMargin",
    "RewardModelGrader",
    "Scorer",
]
