"""Counting tokens for Q_diff beside the tokenizer alone: ``python benchmarks/token_counting.py``.

The stage ``distribution`` on pairs, against ``encode_batch_fast`` on the same texts with nothing done to what
it gives, alternating in one process each. Writes ``results/token_counting.json``: seconds, tokens a second,
what the stage costs beyond the tokenizer, and how many cores each kept busy.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from measuring import run_stage

from deft_engine.specs import Thresholds
from deft_engine.stages import DistributionSpec
from deft_engine.tokenizer import load_tokenizer

TEXTS = 4_096  # given to the tokenizer at a time, as the stage does
SPEC = DistributionSpec(thresholds=Thresholds(), rank_by="auto")


def counted(samples: Path, model: str) -> None:
    """The stage."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = {"samples": str(samples), "tokenizer": model}
        run_stage(Path(folder) / "distribution", "distribution", SPEC, inputs)


def tokenised(samples: Path, model: str) -> None:
    """The tokenizer alone, on texts that are in memory; loading it is part of both."""
    backend = load_tokenizer(model).backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    for texts in batches(samples):
        started = time.perf_counter()
        backend.encode_batch_fast(texts, add_special_tokens=False)
        tokenised.seconds += time.perf_counter() - started  # type: ignore[attr-defined]
