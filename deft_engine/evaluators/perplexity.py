"""How well a model still predicts text that it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from deft_engine.base import Spec
from deft_engine.evaluators.rated import Measure, Rated, unmeasured
from deft_engine.types import Score

_SIGNATURE = "perplexity|of:references|given:prompt|eos:counted|pooled:tokens|v:1"


class Perplexity(Spec):
    """Perplexity of the annotated best responses under the evaluated model, pooled over their tokens.

    Figures of models with different tokenizers are not comparable: the signature tells them apart.
    """

    needs: ClassVar[tuple[Measure, ...]] = ("reference_logp",)
    figures: ClassVar[tuple[str, ...]] = ("perplexity",)

    name: Literal["perplexity"] = "perplexity"

    def __call__(self, answers: Sequence[Rated]) -> dict[str, Score]:
        """``perplexity``: exp of the mean negative log-probability per token; ``extra.tokens`` of them."""
        found = [answer.reference_logp for answer in answers if answer.reference_logp is not None]
        if not found or len(found) < len(answers):
            return {"perplexity": unmeasured(len(answers), len(found), _SIGNATURE)}
        tokens = sum(each.tokens for each in found)
        loss = -math.fsum(each.total for each in found) / tokens
        signature = f"{_SIGNATURE}|{found[0].tokenizer}"
        if loss > _LARGEST_LOSS:
            return {"perplexity": Score(None, len(found), signature, "is too large for a double")}
        return {"perplexity": Score(math.exp(loss), len(found), signature, extra={"tokens": float(tokens)})}

    def per_answer(self, answers: Sequence[Rated]) -> dict[str, list[float | None]]:
        """Nothing: see :func:`perplexity_sums`."""
        return {}


_LARGEST_LOSS = 700.0  # exp of more is no double


def perplexity_sums(answers: Sequence[Rated]) -> list[list[float] | None]:
    """What perplexity adds up over its texts: negative log-probability and tokens, ``[answers, 2]``."""
    found = [answer.reference_logp for answer in answers]
    return [None if each is None else [-each.total, float(each.tokens)] for each in found]
