"""BLEU against the annotated best response (section 4.3), in two forms that are never mixed."""

from __future__ import annotations

from typing import ClassVar, Literal

from deft_engine.base import Spec


class Bleu(Spec):
    """Corpus sacrebleu and ``pro-char`` (character 4-gram sentence BLEU, unsmoothed, mean over samples)."""

    needs_model: ClassVar[bool] = False

    name: Literal["bleu"] = "bleu"
