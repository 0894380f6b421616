"""The length of y_1: the control that shows what a grader's taste for long answers alone would do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import ClassVar, Literal

from deft_engine.graders.grader import BaseGrader, ModelInput
from deft_engine.graders.scoring_context import Rewards, ScoringContext
from deft_engine.types import Samples

_BATCH = 4_096  # samples tokenised at a time


class ResponseLength(BaseGrader):
    """Tokens of y_1's text in the job's tokenizer, no special ones among them."""

    ranks: ClassVar[bool] = False

    name: Literal["length"] = "length"

    def models(self) -> tuple[ModelInput, ...]:
        return (ModelInput("tokenizer"),)

    def score(self, samples: Samples, context: ScoringContext) -> Iterator[Rewards]:
        """Count tokens.

        Raises:
            ModelError: the tokenizer cannot be used.
        """
        from deft_engine.tokenizer import load_tokenizer

        backend = load_tokenizer(context.inputs["tokenizer"]).backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        iterator = iter(samples)
        while batch := list(islice(iterator, _BATCH)):
            texts = [sample.responses[index].text for sample in batch for index in context.needed(sample)]
            encoded = iter(backend.encode_batch_fast(texts, add_special_tokens=False))
            for sample in batch:
                yield context.placed(sample, [float(len(next(encoded).ids)) for _ in context.needed(sample)])
