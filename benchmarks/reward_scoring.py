"""Reward scoring beside transformers' pipeline: ``python benchmarks/reward_scoring.py [--data FILE]``.

The reward model is SmolLM2's backbone with a random head. The pipeline gets the same token ids, a response
with its prompt each, as they come; batches of 1, 4, 8 and 16 are tried and the best one counts. The engine
gets the samples as a window of the stage ``score``: a prompt once, packed by length. Every side scores the
same responses in one process, in rounds that alternate; in float32 the rewards must agree. "Same products":
by the library that the engine takes on this machine. bfloat16 is measured where this CPU is fast at it.

Writes ``results/reward_scoring.json``. FILE has any of the formats; without it, data is generated.
"""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from floating_point import fast_precisions
from measuring import alternate, data_name, machine, median, parser, samples_of, seconds, write
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TextClassificationPipeline

from deft_engine.data.collate import collate
from deft_engine.data.tokenise import TokenisedSample, tokenise
from deft_engine.logps import ranked_rewards
from deft_engine.matrix_products import Library, in_use, multiplied_by
from deft_engine.models import DtypeName, new_reward_model
from deft_engine.resumable import token_batches
from deft_engine.templates import resolve_template
from deft_engine.tokenizer import load_tokenizer

PIPELINE_BATCHES = (1, 4, 8, 16)
TOLERANCE = 1e-4  # of rewards, whose spread is about 1
SEED = 11

Rewards = list[float]


class Side(NamedTuple):
    """Who scores, and how."""

    engine: Literal["pipeline", "deft"]
    dtype: DtypeName = "float32"
    shipped: bool = False


SIDES = {
    "pipeline as shipped": Side("pipeline", shipped=True),
    "pipeline, same products": Side("pipeline"),
    "deft": Side("deft"),
    "pipeline, bfloat16": Side("pipeline", "bfloat16"),
    "deft, bfloat16": Side("deft", "bfloat16"),
}
PEERS = {
    "as shipped": ("pipeline as shipped", "deft"),
    "same products": ("pipeline, same products", "deft"),
    "both bfloat16": ("pipeline, bfloat16", "deft, bfloat16"),
}


class IdsPipeline(TextClassificationPipeline):
    """The pipeline on token ids, so that both sides score the same ones and neither is timed tokenising."""

    def preprocess(self, ids: list[int], **_: Any) -> dict[str, torch.Tensor]:
        return {
            "input_ids": torch.tensor([ids]),
            "attention_mask": torch.ones(1, len(ids), dtype=torch.int64),
        }


class Sides:
    """What is scored, and by whom; keeps the last rewards of every side."""

    def __init__(self, uri: str, samples: list[TokenisedSample], tokenizer: PreTrainedTokenizerBase) -> None:
        self._samples = samples
        self._sequences = [s.prompt + response for s in samples for response in s.responses]
        pad = next(i for i in range(len(tokenizer)) if all(i != ids[-1] for ids in self._sequences))
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
        self._tokenizer = tokenizer
        self._models = {name: new_reward_model(uri, name) for name in fast_precisions()}
        for model in self._models.values():
            model.config.pad_token_id = pad  # the pipeline pools at the last other token: the EOS
        self.rewards: dict[str, Rewards] = {}

    def pipeline(self, name: str, dtype: str, library: Library, batch: int) -> float:
        """Seconds of the pipeline."""
        scorer = IdsPipeline(
            model=self._models[dtype], tokenizer=self._tokenizer, function_to_apply="none", batch_size=batch
        )

        def work() -> None:
            with multiplied_by(library), torch.inference_mode():
                self.rewards[name] = [found["score"] for found in scorer(self._sequences)]

        return seconds(work)

    def engine(self, name: str, dtype: str) -> float:
        """Seconds of the engine."""

        def work() -> None:
            with torch.inference_mode():
                self.rewards[name] = self._engine_rewards(self._models[dtype])

        return seconds(work)

    def _engine_rewards(self, model: PreTrainedModel) -> Rewards:
        found: list[Rewards] = [[] for _ in self._samples]
        for indices in token_batches(self._samples):
            rows = ranked_rewards(model, collate([self._samples[index] for index in indices])).tolist()
            for index, row in zip(indices, rows, strict=True):
                found[index] = row[: len(self._samples[index].responses)]
        return [reward for row in found for reward in row]

    def difference(self, one: str, other: str) -> float:
        """The largest difference of two sides' rewards."""
        pairs = zip(self.rewards[one], self.rewards[other], strict=True)
        return max(abs(left - right) for left, right in pairs)


def measure(uri: str, data: Path | None, count: int, max_length: int, rounds: int) -> dict[str, Any]:
    """Seconds of all sides, and how far their rewards are apart."""
    tokenizer = load_tokenizer(uri)
    template = resolve_template("auto", uri, tokenizer)
    drawn = random.Random(SEED).sample(samples_of(data), count)
    samples = [tokenise(s, tokenizer, template, max_length, range(len(s.responses))) for s in drawn]
    sides = Sides(uri, samples, tokenizer)
    sides.engine("deft", "float32")  # what is done once
    chosen = in_use() or "shipped"
    tried = {batch: sides.pipeline(f"{batch}", "float32", chosen, batch) for batch in PIPELINE_BATCHES}
    best = min(tried, key=lambda batch: tried[batch])

    found = alternate(
        {
            name: partial(sides.engine, name, side.dtype)
            if side.engine == "deft"
            else partial(sides.pipeline, name, side.dtype, "shipped" if side.shipped else chosen, best)
            for name, side in SIDES.items()
            if side.dtype in fast_precisions()
        },
        rounds,
    )
    peers = {name: each for name, each in PEERS.items() if each[0] in found}
    differences = {name: sides.difference(*each) for name, each in peers.items()}
    assert max(differences["as shipped"], differences["same products"]) <= TOLERANCE, differences
    medians = {name: median(each) for name, each in found.items()}
    responses = sum(len(sample.responses) for sample in samples)
    return {
        "samples": count,
        "responses": responses,
        "tokens": {
            "with every prompt once": sum(sample.tokens for sample in samples),
            "with every response's own": sum(len(s.prompt) + len(r) for s in samples for r in s.responses),
        },
        "pipeline_seconds_by_batch": {f"{batch}": round(each, 3) for batch, each in tried.items()},
        "pipeline_batch": best,
        "matrix_products": chosen,
        "seconds": {name: {"median": medians[name], "all": each} for name, each in found.items()},
        "responses_per_second": {name: round(responses / each, 2) for name, each in medians.items()},
        "largest_difference": differences,
        "speedup": {name: round(medians[peer] / medians[side], 2) for name, (peer, side) in peers.items()},
    }


def main() -> None:
    """Measure, print and write."""
    made = parser(__doc__, "reward_scoring")
    made.add_argument("--data", type=Path)
    made.add_argument("--model", default="builtin:smollm2")
    made.add_argument("--samples", type=int, default=32)
    made.add_argument("--max-length", type=int, default=512)
    made.add_argument("--rounds", type=int, default=3)
    parsed = made.parse_args()
    about = machine() | {"data": data_name(parsed.data), "model": parsed.model, "rounds": parsed.rounds}
    write(
        parsed.out,
        about | measure(parsed.model, parsed.data, parsed.samples, parsed.max_length, parsed.rounds),
    )


if __name__ == "__main__":
    main()
