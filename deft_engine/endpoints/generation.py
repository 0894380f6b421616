"""Answers by an endpoint: zero-shot rows of the paper's Table 2, or a large model served elsewhere."""

from __future__ import annotations

import time
from typing import Any

from deft_engine.data.generations import answered, write_generations
from deft_engine.data.samples import StoredSamples
from deft_engine.data.selection import Selected, choose
from deft_engine.endpoints.chat import ChatRequest
from deft_engine.endpoints.client import ChatClient
from deft_engine.run import StageContext
from deft_engine.stages import GenerateSpec


def run(context: StageContext[GenerateSpec]) -> dict[str, Any]:
    """Ask for the chosen samples' answers at temperature 0; a stopped run goes on with those that are kept.

    Raises:
        EndpointError: an answer cannot be had; those that came are kept and not asked for again.
    """
    spec, path = context.spec, context.path("samples")
    stored = StoredSamples(path)
    samples = list(Selected(stored, choose(len(stored), spec.samples, spec.seed)))
    requests = [ChatRequest(sample.prompt, spec.max_new_tokens, temperature=0.0) for sample in samples]
    started = time.monotonic()
    with ChatClient.open(context) as client:
        answers = client.collect(requests, context.events)
        usage = client.usage
    write_generations(
        context.out / "generations.jsonl",
        (answered(sample, answer.text) for sample, answer in zip(samples, answers, strict=True)),
    )
    return {
        "samples": len(samples),
        "tokens": sum(answer.completion_tokens or 0 for answer in answers),
        "seconds": round(time.monotonic() - started, 3),
        "cut": sum(answer.cut for answer in answers),
        "endpoint": usage,
    }
