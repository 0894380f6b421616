"""Evaluators: figures over generations. Each is a small frozen model that can be called, listed once here.

An evaluator maps a group of answers to a :class:`~deft_engine.types.Score` for each of its ``figures``.
"""

from typing import Annotated

from pydantic import Field

from deft_engine.evaluators.bleu import Bleu
from deft_engine.evaluators.decimals import decimals
from deft_engine.evaluators.distinct import DistinctN
from deft_engine.evaluators.divergence import Divergence
from deft_engine.evaluators.length import Length
from deft_engine.evaluators.perplexity import Perplexity
from deft_engine.evaluators.rated import Measure, Rated, TokenSum
from deft_engine.evaluators.reward import Reward

EVALUATORS = (Reward, Bleu, Length, DistinctN, Divergence, Perplexity)
"""Every evaluator; a new one is one file and one entry here."""

Evaluator = Annotated[
    Reward | Bleu | Length | DistinctN | Divergence | Perplexity, Field(discriminator="name")
]

__all__ = [
    "EVALUATORS",
    "Bleu",
    "DistinctN",
    "Divergence",
    "Evaluator",
    "Length",
    "Measure",
    "Perplexity",
    "Rated",
    "Reward",
    "TokenSum",
    "decimals",
]
