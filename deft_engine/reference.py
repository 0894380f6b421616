"""The stage ``reference``: log-probabilities of all responses under the initial policy, once per dataset.

``reference.parquet``: ``sample_id string, rank int32, logp double, length int32``, a row per response in the
annotated order; ``length`` counts its target tokens, EOS included.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from deft_engine.data.collate import collate
from deft_engine.data.samples import StoredSamples, read_index
from deft_engine.data.selection import Selected
from deft_engine.data.tokenise import tokenise
from deft_engine.errors import DataError
from deft_engine.grading import read_levels
from deft_engine.logps import ranked_logps
from deft_engine.models import device, load_policy
from deft_engine.precision import autocast
from deft_engine.resumable import Within, token_batches, windows
from deft_engine.run import StageContext
from deft_engine.stages import ReferenceSpec
from deft_engine.templates import resolve_template
from deft_engine.tokenizer import load_tokenizer
from deft_engine.types import Sample, Samples

_SCHEMA = pa.schema(
    [("sample_id", pa.string()), ("rank", pa.int32()), ("logp", pa.float64()), ("length", pa.int32())]
)

_Row = tuple[list[float], list[int], int]  # logps and lengths of a sample's responses; how many were cut


def run(context: StageContext[ReferenceSpec]) -> dict[str, Any]:
    """Write ``reference.parquet`` for the samples of the wanted levels.

    The arithmetic is that of training (float32 weights, bfloat16 products where asked for), so that policy
    and reference agree before the first step.

    Raises:
        ModelError: the model cannot be used.
        DataError: no sample has one of the levels.
    """
    started = time.monotonic()
    totals = {"samples": 0, "responses": 0, "tokens": 0, "truncated": 0}
    wanted = _wanted(context)
    ids = read_index(context.path("samples")).ids
    positions = [position for position, name in enumerate(ids) if name in wanted]
    samples = Selected(StoredSamples(context.path("samples")), positions)
    with pq.ParquetWriter(context.out / "reference.parquet", _SCHEMA, compression="zstd") as writer:
        for window, results in _computed(context, samples):
            writer.write_table(_table(window, results))
            totals["samples"] += len(window)
            totals["responses"] += sum(len(logps) for logps, _, _ in results)
            totals["tokens"] += sum(sum(lengths) for _, lengths, _ in results)
            totals["truncated"] += sum(truncated for _, _, truncated in results)
            context.events.progress(totals["samples"], len(wanted))
    return {**totals, "seconds": time.monotonic() - started}


def _wanted(context: StageContext[ReferenceSpec]) -> set[str]:
    """Ids of the samples to compute."""
    levels = set(context.spec.levels)
    if not levels:
        return set(read_index(context.path("samples")).ids)
    graded = read_levels(context.path("levels"))
    wanted = {name for name, level in graded.items() if level in levels}
    if not wanted:
        raise DataError(
            f"no sample has level {' or '.join(sorted(levels))}", hint="raise deft.a, or name other levels"
        )
    return wanted


def _computed(
    context: StageContext[ReferenceSpec], samples: Samples
) -> Iterator[tuple[list[Sample], Sequence[_Row]]]:
    """Each window of samples with its results."""
    spec, uri, events = context.spec, context.inputs["model"], context.events
    tokenizer = load_tokenizer(uri)
    template = resolve_template(spec.template, uri, tokenizer)
    model = load_policy(uri, "float32").to(device())

    def compute(window: list[Sample], start: int) -> list[_Row]:
        inputs = [
            tokenise(sample, tokenizer, template, spec.max_length, range(len(sample.responses)))
            for sample in window
        ]
        results: dict[int, _Row] = {}
        within = Within(start, len(window), len(window), lambda done: events.progress(done, len(samples)))
        for indices in token_batches(inputs):
            context.stop.check()
            within.done(len(results))
            batch = collate([inputs[index] for index in indices]).to(device())
            with torch.inference_mode(), autocast(spec.dtype):
                logps = ranked_logps(model, batch).policy.tolist()
            for index, row in zip(indices, logps, strict=True):
                lengths = [len(response) for response in inputs[index].responses]
                results[index] = (row[: len(lengths)], lengths, inputs[index].truncated)
        return [results[index] for index in range(len(window))]

    return windows(samples, context.work, "reference", compute, context.world)


def _table(window: list[Sample], results: Sequence[_Row]) -> pa.Table:
    ids = [sample.id for sample in window for _ in sample.responses]
    return pa.Table.from_arrays(
        [
            pa.array(ids, pa.string()),
            pa.array([rank for logps, _, _ in results for rank in range(len(logps))], pa.int32()),
            pa.array([logp for logps, _, _ in results for logp in logps], pa.float64()),
            pa.array([length for _, lengths, _ in results for length in lengths], pa.int32()),
        ],
        schema=_SCHEMA,
    )
