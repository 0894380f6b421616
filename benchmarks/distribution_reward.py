"""What R_dis costs: ``python benchmarks/distribution_reward.py [--data FILE --model MODEL]``.

A DPO step (forward and backward pass of the policy, on a batch of pairs) without the distribution reward,
with it by the identity of eqs 16-17, with it by its definition (a log-softmax over the vocabulary), and with
the identity and its share of the gradient measured, as some 20 steps of a run do. Alternating, in float32.

Writes ``results/distribution_reward.json``.
"""

from __future__ import annotations

import random
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import alternate, data_name, machine, median, parser, samples_of, seconds, write
from torch import Tensor
from transformers import PreTrainedModel

from deft_engine.data.collate import RankedBatch, collate
from deft_engine.data.tokenise import tokenise
from deft_engine.distribution_reward import gradient_share, sample_rewards
from deft_engine.heads import head_rows, output_head
from deft_engine.logps import ranked_logps
from deft_engine.losses import DPO
from deft_engine.matrix_products import in_use
from deft_engine.models import load_policy
from deft_engine.spec_sections import Scale
from deft_engine.templates import resolve_template
from deft_engine.tokenizer import load_tokenizer

SEED = 5
OMEGA = 0.5
METHOD = DPO()


def batch_of(parsed: Namespace) -> RankedBatch:
    """Pairs of best and worst response, drawn with a seed."""
    tokenizer = load_tokenizer(parsed.model)
    template = resolve_template("auto", parsed.model, tokenizer)
    drawn = random.Random(SEED).sample(samples_of(parsed.data), parsed.pairs)
    return collate(
        [tokenise(s, tokenizer, template, parsed.max_length, (0, len(s.responses) - 1)) for s in drawn]
    )


class Steps:
    """The step in its forms."""

    def __init__(self, model: PreTrainedModel, batch: RankedBatch) -> None:
        self._model, self._batch = model, batch
        self._head = output_head(model)
        weights = torch.randn(head_rows(self._head), dtype=torch.float64, generator=_generator())
        weights /= weights.abs().sum()
        self._q_diff = weights - weights.mean()
        with torch.no_grad():
            self._reference = ranked_logps(model, batch).policy

    def plain(self) -> None:
        """DPO alone."""
        self._losses(None)[0].backward()

    def with_reward(self, scale: Scale) -> None:
        """DPO in DEFT form."""
        loss, r_dis, _ = self._losses(scale)
        (loss - OMEGA * r_dis).backward()

    def with_share(self) -> None:
        """The same, and the term's share of the gradient."""
        loss, r_dis, logps = self._losses("normalised")
        gradient_share(logps, loss, r_dis)
        (loss - OMEGA * r_dis).backward()

    def _losses(self, scale: Scale | None) -> tuple[Tensor, Tensor, Any]:
        logps = ranked_logps(self._model, self._batch).with_reference(self._reference)
        loss = METHOD(logps).loss.sum()
        if scale is None:
            return loss, loss, logps
        return loss, sample_rewards(logps, self._head, self._q_diff, scale, "chosen").sum(), logps


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


def arguments(doc: str | None, result: str) -> Namespace:
    """The command line of a benchmark of steps on a batch of pairs."""
    made = parser(doc, result)
    made.add_argument("--data", type=Path)
    made.add_argument("--model", default="builtin:smollm2")
    made.add_argument("--pairs", type=int, default=4)
    made.add_argument("--max-length", type=int, default=512)
    made.add_argument("--rounds", type=int, default=7)
    return made.parse_args()


def main() -> None:
    """Measure, print and write."""
    parsed = arguments(__doc__, "distribution_reward")
    about = machine()
    batch = batch_of(parsed)
    model = load_policy(parsed.model, "float32").train()
    steps = Steps(model, batch)
    sides: dict[str, Callable[[], None]] = {
        "without": steps.plain,
        "identity": partial(steps.with_reward, "normalised"),
        "definition": partial(steps.with_reward, "counts"),
        "identity and share": steps.with_share,
    }
    for side in sides.values():
        side()  # what is done once
        model.zero_grad()
    found = alternate({name: partial(seconds, side) for name, side in sides.items()}, parsed.rounds)
    medians = {name: median(each) for name, each in found.items()}
    write(
        parsed.out,
        about
        | {
            "data": data_name(parsed.data),
            "model": parsed.model,
            "pairs": parsed.pairs,
            "tokens": batch.tokens,
            "matrix_products": in_use(),
            "seconds": {name: {"median": medians[name], "all": each} for name, each in found.items()},
            "cost_percent": {
                name: round(100 * (each / medians["without"] - 1), 1)
                for name, each in medians.items()
                if name != "without"
            },
        },
    )


if __name__ == "__main__":
    main()
