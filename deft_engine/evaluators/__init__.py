"""Evaluators: figures over generations. Each is a small frozen model, listed once here."""

from typing import Annotated

from pydantic import Field

from deft_engine.evaluators.bleu import Bleu
from deft_engine.evaluators.reward import Reward

EVALUATORS = (Reward, Bleu)

Evaluator = Annotated[Reward | Bleu, Field(discriminator="name")]

__all__ = ["EVALUATORS", "Bleu", "Evaluator", "Reward"]
