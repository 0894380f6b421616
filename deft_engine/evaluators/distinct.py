"""How varied answers are: a policy that says the same to everything can have a good reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from deft_engine.base import Spec
from deft_engine.evaluators.rated import Measure, Rated, no_value
from deft_engine.types import Score

_ORDERS = (1, 2, 3)


class DistinctN(Spec):
    """Distinct-1, -2 and -3 (Li et al. 2016): different n-grams of words over all n-grams of a group.

    It falls as a group grows, so groups of one size are compared. It is no mean over answers, and a resample
    repeats answers and so lowers it: it has no interval.
    """

    needs: ClassVar[tuple[Measure, ...]] = ()
    figures: ClassVar[tuple[str, ...]] = tuple(f"distinct_{order}" for order in _ORDERS)

    name: Literal["distinct_n"] = "distinct_n"

    def __call__(self, answers: Sequence[Rated]) -> dict[str, Score]:
        """``distinct_1``, ``distinct_2`` and ``distinct_3``, each from 0 to 1; words by sacrebleu's 13a."""
        from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

        tokenizer = Tokenizer13a()
        texts = [tokenizer(answer.generation.response).split() for answer in answers]
        return {f"distinct_{order}": _distinct(texts, order) for order in _ORDERS}

    def per_answer(self, answers: Sequence[Rated]) -> dict[str, list[float | None]]:
        """Nothing: what is distinct in a group is no mean over its answers."""
        return {}


def _distinct(texts: Sequence[Sequence[str]], order: int) -> Score:
    signature = f"distinct|order:{order}|tok:13a|case:mixed|over:group|v:1"
    ngrams = [tuple(words[at : at + order]) for words in texts for at in range(len(words) - order + 1)]
    if not ngrams:
        return no_value(len(texts), signature, f"no answer has {order} words")
    return Score(len(set(ngrams)) / len(ngrams), len(texts), signature, extra={"ngrams": len(ngrams)})
