"""How long answers are: a reward or a BLEU is hard to read without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from deft_engine.base import Spec
from deft_engine.evaluators.rated import NO_SAMPLES, Measure, Rated, no_value
from deft_engine.types import Score

_SIGNATURE = "length|characters|mean|v:1"


class Length(Spec):
    """Mean characters of a response; ``extra.words`` is its mean number of words between white space."""

    needs: ClassVar[tuple[Measure, ...]] = ()
    figures: ClassVar[tuple[str, ...]] = ("length",)

    name: Literal["length"] = "length"

    def __call__(self, answers: Sequence[Rated]) -> dict[str, Score]:
        """``length`` in characters."""
        n = len(answers)
        if n == 0:
            return {"length": no_value(0, _SIGNATURE, NO_SAMPLES)}
        texts = [answer.generation.response for answer in answers]
        words = sum(len(text.split()) for text in texts) / n
        return {"length": Score(sum(map(len, texts)) / n, n, _SIGNATURE, extra={"words": words})}

    def per_answer(self, answers: Sequence[Rated]) -> dict[str, list[float | None]]:
        """Each answer's characters."""
        return {"length": [float(len(answer.generation.response)) for answer in answers]}
