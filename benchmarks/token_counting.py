"""Counting tokens for Q_diff beside the tokenizer: ``python benchmarks/token_counting.py [--data FILE]``.

The stage ``distribution`` on pairs, against ``encode_batch_fast`` on the same responses with nothing done to
what it gives; both read the samples and load the tokenizer. Writes ``results/token_counting.json``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from measuring import alternate, data_name, machine, median, parser, run_stage, samples_of, seconds, write

from deft_engine.data.samples import read_samples, write_samples
from deft_engine.spec_sections import Thresholds
from deft_engine.stages import DistributionSpec
from deft_engine.tokenizer import load_tokenizer

TEXTS = 4_096  # given to the tokenizer at a time, as the stage does
SPEC = DistributionSpec(thresholds=Thresholds(), rank_by="auto")


def count(samples: Path, model: str) -> None:
    """The stage: tokens of y_1 and y_l into Q+ and Q-."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = {"samples": str(samples), "tokenizer": model}
        run_stage(Path(folder) / "distribution", "distribution", SPEC, inputs)


def tokenise(samples: Path, model: str) -> int:
    """The tokenizer alone; returns the number of tokens."""
    backend = load_tokenizer(model).backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    texts = ends(samples)
    tokens = 0
    while batch := list(islice(texts, TEXTS)):
        tokens += sum(map(len, backend.encode_batch_fast(batch, add_special_tokens=False)))
    return tokens


def ends(samples: Path) -> Iterator[str]:
    """Texts of y_1 and y_l of every sample."""
    for sample in read_samples(samples):
        yield sample.chosen.text
        yield sample.rejected.text


def main() -> None:
    """Measure, print and write."""
    made = parser(__doc__, "token_counting")
    made.add_argument("--data", type=Path)
    made.add_argument("--model", default="builtin:smollm2")
    made.add_argument("--rounds", type=int, default=5)
    parsed = made.parse_args()
    about = machine()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.parquet"
        found = samples_of(parsed.data)
        write_samples(path, found)
        tokens = tokenise(path, parsed.model)
        sides = {
            "tokenizer": lambda: seconds(lambda: tokenise(path, parsed.model)),
            "stage": lambda: seconds(lambda: count(path, parsed.model)),
        }
        times = alternate(sides, parsed.rounds)
    medians = {name: median(each) for name, each in times.items()}
    write(
        parsed.out,
        about
        | {
            "data": data_name(parsed.data),
            "model": parsed.model,
            "samples": len(found),
            "tokens": tokens,
            "seconds": {name: {"median": medians[name], "all": each} for name, each in times.items()},
            "tokens_per_second": {name: round(tokens / each) for name, each in medians.items()},
            "over_the_tokenizer_percent": round(100 * (medians["stage"] / medians["tokenizer"] - 1), 1),
        },
    )


if __name__ == "__main__":
    main()
