"""Values of responses under a model: those of a prompt in one packed pass, window by window, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from deft_engine.data.collate import RankedBatch, collate
from deft_engine.data.tokenise import TokenisedSample, left_truncated, tokenise
from deft_engine.events import EventWriter
from deft_engine.graders.grader import Responses
from deft_engine.graders.scoring_context import Rewards, needed_responses, placed
from deft_engine.models import device
from deft_engine.resumable import Within, token_batches, windows
from deft_engine.run import StopRequest
from deft_engine.templates import FixedTemplate
from deft_engine.types import Sample, Samples
from deft_engine.world import ALONE, World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Cut = Literal["prompt", "left"]
"""What gives way where a sequence is too long: see ``tokenise`` and ``left_truncated``."""


@dataclass(frozen=True, slots=True)
class Tokenising:
    """How a sample becomes tokens."""

    tokenizer: PreTrainedTokenizerBase
    template: FixedTemplate
    max_length: int
    cut: Cut = "prompt"

    def parts(self, sample: Sample, order: Sequence[int]) -> list[TokenisedSample]:
        """The responses ``order`` of a sample, in this order, behind one prompt or each behind its own."""
        if self.cut == "left":
            return left_truncated(sample, self.tokenizer, self.template, self.max_length, order)
        return [tokenise(sample, self.tokenizer, self.template, self.max_length, order)]


@dataclass(frozen=True, slots=True)
class ScoringPass:
    """One pass over all samples: ``number``, from 0, of the stage's ``passes``."""

    name: str  # tells its files in ``work`` apart
    events: EventWriter
    stop: StopRequest
    work: Path
    world: World = ALONE
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

    def needed(sample: Sample) -> Sequence[int]:
        return needed_responses(len(sample.responses), responses)

    def compute_window(window: list[Sample], start: int) -> list[Rewards]:
        started = time.monotonic()
        inputs = [tokenising.parts(sample, needed(sample)) for sample in window]
        parts = list(chain.from_iterable(inputs))
        within = Within(start, len(window), len(parts), lambda done: run.progress(done, len(samples)))

        def before_batch(done: int) -> None:
            run.stop.check()
            within.done(done)

        values = values_of(parts, compute, before_batch)
        scored = sum(map(len, values))
        run.pace(start + len(window), len(samples), scored / (time.monotonic() - started))
        in_order = iter(values)
        return [
            placed(len(sample.responses), needed(sample), chain.from_iterable(islice(in_order, len(own))))
            for sample, own in zip(window, inputs, strict=True)
        ]

    done = 0
    for window, results in windows(samples, run.work, run.name, compute_window, run.world):
        done += len(window)
        run.progress(done, len(samples))
        yield from results


def values_of(
    parts: Sequence[TokenisedSample],
    compute: Callable[[RankedBatch], Tensor],
    before_batch: Callable[[int], None],
) -> list[list[float]]:
    """A value of each response of each sample, in packed batches of like length.

    Args:
        compute: Values ``[batch, ranks]`` of a packed batch, without gradients.
        before_batch: Told before each batch how many samples are done; it may raise to give up.
    """
    values: list[list[float]] = [[] for _ in parts]
    done = 0
    for indices in token_batches(parts):
        before_batch(done)
        done += len(indices)
        batch = collate([parts[index] for index in indices]).to(device())
        with torch.inference_mode():
            rows = compute(batch).tolist()
        for index, row in zip(indices, rows, strict=True):
            values[index] = row[: len(parts[index].responses)]
    return values
