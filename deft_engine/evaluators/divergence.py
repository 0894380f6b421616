"""How far a policy's predictions have moved from the model it started from: the price of alignment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from deft_engine.base import Spec
from deft_engine.evaluators.rated import Measure, Rated, unmeasured
from deft_engine.types import Score

_SIGNATURE = "divergence|KL(policy||reference)|nats:token|on:answers|avg:answers|v:1"


class Divergence(Spec):
    """Mean over answers of KL(policy || reference) per token, over the whole vocabulary, in nats.

    The predictions compared are those of the tokens of the policy's own answer, its EOS included.
    """

    needs: ClassVar[tuple[Measure, ...]] = ("divergence",)
    figures: ClassVar[tuple[str, ...]] = ("divergence",)

    name: Literal["divergence"] = "divergence"

    def __call__(self, answers: Sequence[Rated]) -> dict[str, Score]:
        """``divergence``; ``extra`` has the tokens compared and the mean sum of an answer."""
        found = [answer.divergence for answer in answers if answer.divergence is not None]
        if not found or len(found) < len(answers):
            return {"divergence": unmeasured(len(answers), len(found), _SIGNATURE)}
        n = len(found)
        mean = math.fsum(each.total / each.tokens for each in found) / n
        extra = {
            "tokens": float(sum(each.tokens for each in found)),
            "of_answer": math.fsum(each.total for each in found) / n,
        }
        signature = f"{_SIGNATURE}|{found[0].tokenizer}"
        return {"divergence": Score(mean, n, signature, extra=extra)}

    def per_answer(self, answers: Sequence[Rated]) -> dict[str, list[float | None]]:
        """Each answer's divergence per token."""
        found = [answer.divergence for answer in answers]
        return {"divergence": [None if each is None else each.total / each.tokens for each in found]}
