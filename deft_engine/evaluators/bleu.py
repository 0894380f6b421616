"""BLEU against the annotated best response (section 4.3), in two forms that are never mixed."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Literal

from deft_engine.base import Spec
from deft_engine.evaluators.rated import NO_SAMPLES, Measure, Rated, no_value
from deft_engine.types import Score

_ORDERS = (1, 2, 3, 4)
_PRO_CHAR = "bleu|pro-char|tok:char|order:4|smooth:none|avg:sentences|v:1"


class Bleu(Spec):
    """Corpus sacrebleu and ``pro-char`` (character 4-gram sentence BLEU, unsmoothed, mean over samples)."""

    needs: ClassVar[tuple[Measure, ...]] = ()
    figures: ClassVar[tuple[str, ...]] = ("bleu", "bleu_pro_char")

    name: Literal["bleu"] = "bleu"

    def __call__(self, answers: Sequence[Rated]) -> dict[str, Score]:
        """``bleu`` and ``bleu_pro_char``, each from 0 to 100, with the signature that tells them apart."""
        return {"bleu": _corpus_bleu(answers), "bleu_pro_char": _pro_char_bleu(answers)}

    def per_answer(self, answers: Sequence[Rated]) -> dict[str, list[float | None]]:
        """Each answer's ``pro-char`` BLEU; the corpus figure is no mean, see :func:`corpus_counts`."""
        texts = [(answer.generation.reference, answer.generation.response) for answer in answers]
        return {"bleu_pro_char": [100 * char_bleu(reference, response) for reference, response in texts]}


def char_bleu(reference: str, hypothesis: str) -> float:
    """Unsmoothed BLEU of two strings over their characters, from 0 to 1.

    This is what the PRO reference's evaluation computes: NLTK's ``sentence_bleu`` with its defaults, given
    strings where it expects lists of words. As there, an order without a match counts as the smallest
    positive float, and a hypothesis without any common character is 0.
    """
    if not hypothesis:
        return 0.0
    precisions = [_precision(reference, hypothesis, order) for order in _ORDERS]
    if precisions[0] == 0:
        return 0.0
    mean_log = math.fsum(math.log(p or sys.float_info.min) for p in precisions) / len(_ORDERS)
    brevity = min(1.0, math.exp(1 - len(reference) / len(hypothesis)))
    return brevity * math.exp(mean_log)


def corpus_counts(answers: Sequence[Rated]) -> list[list[int]]:
    """What corpus BLEU adds up over its sentences, ``[answers, 10]``.

    The lengths of answer and reference in tokens, then for the orders 1 to 4 the matches and the n-grams.
    """
    from sacrebleu.metrics import BLEU

    metric = BLEU(effective_order=True)  # of a sentence; it changes no count
    counts = []
    for answer in answers:
        score = metric.sentence_score(answer.generation.response, [answer.generation.reference])
        counts.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
    return counts


def _precision(reference: str, hypothesis: str, order: int) -> float:
    """The share of the hypothesis's n-grams that the reference has, each as often at most (clipped)."""
    have, want = _ngrams(hypothesis, order), _ngrams(reference, order)
    return (have & want).total() / max(1, have.total())


def _ngrams(text: str, order: int) -> Counter[str]:
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))


def _pro_char_bleu(answers: Sequence[Rated]) -> Score:
    if not answers:
        return no_value(0, _PRO_CHAR, NO_SAMPLES)
    scores = [char_bleu(a.generation.reference, a.generation.response) for a in answers]
    return Score(100 * math.fsum(scores) / len(scores), len(scores), _PRO_CHAR)


def _corpus_bleu(answers: Sequence[Rated]) -> Score:
    from sacrebleu.metrics import BLEU

    metric = BLEU()
    references = [answer.generation.reference for answer in answers]
    if not answers:
        return no_value(0, "bleu|sacrebleu", NO_SAMPLES)
    result = metric.corpus_score([answer.generation.response for answer in answers], [references])
    return Score(result.score, len(answers), f"bleu|{metric.get_signature().format()}")
