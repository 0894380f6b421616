"""Rewards of samples under a reward model: all responses of a prompt in one packed pass, resumable."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch

from deft_engine.data.collate import collate
from deft_engine.data.tokenise import TokenisedSample, tokenise
from deft_engine.events import EventWriter
from deft_engine.logps import ranked_rewards
from deft_engine.models import device, load_reward_model
from deft_engine.resumable import token_batches, windows
from deft_engine.run import StopRequest
from deft_engine.templates import resolve_template
from deft_engine.tokenizer import load_tokenizer
from deft_engine.types import Sample

Rewards = list[float | None]


def score_samples(
    model_uri: str,
    samples: Sequence[Sample],
    responses: Literal["first", "all"],
    max_length: int,
    events: EventWriter,
    stop: StopRequest,
    work: Path,
) -> Iterator[Rewards]:
    """One list of rewards per sample, in order, aligned with its responses as annotated.

    The same values whether or not it was interrupted in between.

    Args:
        model_uri: The reward model, as ``load_reward_model`` takes it.
        responses: ``first``: where a sample has two, only the first is scored, the other's reward is None.
        max_length: Tokens of prompt and response; see ``tokenise``.
        work: Folder that keeps what is done.

    Raises:
        ModelError: the model cannot be used.
        Interrupted: ``stop`` was set; the windows that are done are kept.
    """
    tokenizer = load_tokenizer(model_uri)
    template = resolve_template("auto", model_uri, tokenizer)
    model = load_reward_model(model_uri, "auto").to(device())
    limit = min(max_length, model.config.max_position_embeddings)
    done = 0

    def tokenised(sample: Sample) -> TokenisedSample:
        only_first = responses == "first" and len(sample.responses) == 2
        order = range(1 if only_first else len(sample.responses))
        return tokenise(sample, tokenizer, template, limit, order)

    def score_window(window: list[Sample]) -> list[Rewards]:
        started = time.monotonic()
        inputs = [tokenised(sample) for sample in window]
        results: list[Rewards] = [[None] * len(sample.responses) for sample in window]
        for indices in token_batches(inputs):
            stop.check()
            batch = collate([inputs[index] for index in indices]).to(device())
            with torch.inference_mode():
                rewards = ranked_rewards(model, batch).tolist()
            for index, row in zip(indices, rewards, strict=True):
                count = len(inputs[index].responses)
                results[index][:count] = row[:count]
        scored = sum(len(sample.responses) for sample in inputs)
        rate = scored / (time.monotonic() - started)
        events.metrics(done + len(window), {"score/responses_per_second": rate})
        return results

    for window, results in windows(samples, work, "rewards", score_window):
        done += len(window)
        events.progress(done, len(samples))
        yield from results
