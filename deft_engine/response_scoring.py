"""Values of responses under a model: those of a prompt in one packed pass, window by window, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from deft_engine.data.collate import RankedBatch, collate
from deft_engine.data.tokenise import TokenisedSample, tokenise
from deft_engine.events import EventWriter
from deft_engine.graders.grader import Responses
from deft_engine.graders.scoring_context import Rewards, needed_responses, placed
from deft_engine.models import device
from deft_engine.resumable import token_batches, windows
from deft_engine.run import StopRequest
from deft_engine.templates import FixedTemplate
from deft_engine.types import Sample, Samples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Tokenising:
    """How a sample becomes tokens."""

    tokenizer: PreTrainedTokenizerBase
    template: FixedTemplate
    max_length: int


@dataclass(frozen=True, slots=True)
class ScoringPass:
    """One pass over all samples: ``number``, from 0, of the stage's ``passes``."""

    name: str  # tells its files in ``work`` apart
    events: EventWriter
    stop: StopRequest
    work: Path
    number: int = 0
    passes: int = 1

    def pace(self, done: int, samples: int, rate: float) -> None:
        """Responses a second, at the place over all passes."""
        self.events.metrics(self.number * samples + done, {"score/responses_per_second": rate})

    def progress(self, done: int, samples: int) -> None:
        """How far all passes are, in samples."""
        self.events.progress((self.number * samples + done) // self.passes, samples)


def response_values(
    samples: Samples,
    responses: Responses,
    tokenising: Tokenising,
    compute: Callable[[RankedBatch], Tensor],
    run: ScoringPass,
) -> Iterator[Rewards]:
    """One list of values per sample, in order, aligned with its responses; None where not needed.

    The same values whether or not it was interrupted in between.

    Args:
        compute: Values ``[batch, ranks]`` of a packed batch of the needed responses, without gradients.

    Raises:
        Interrupted: ``run.stop`` was set; the windows that are done are kept.
    """

    def tokenised(sample: Sample) -> TokenisedSample:
        order = needed_responses(len(sample.responses), responses)
        return tokenise(sample, tokenising.tokenizer, tokenising.template, tokenising.max_length, order)

    def compute_window(window: list[Sample]) -> list[Rewards]:
        started = time.monotonic()
        inputs = [tokenised(sample) for sample in window]
        results: list[Rewards] = [[] for _ in window]
        for indices in token_batches(inputs):
            run.stop.check()
            batch = collate([inputs[index] for index in indices]).to(device())
            with torch.inference_mode():
                values = compute(batch).tolist()
            for index, row in zip(indices, values, strict=True):
                count = len(window[index].responses)
                needed = needed_responses(count, responses)
                results[index] = placed(count, needed, row[: len(needed)])
        scored = sum(len(sample.responses) for sample in inputs)
        run.pace(done + len(window), len(samples), scored / (time.monotonic() - started))
        return results

    done = 0
    for window, results in windows(samples, run.work, run.name, compute_window):
        done += len(window)
        run.progress(done, len(samples))
        yield from results
