"""A PRO step on lists, beside padded rows: ``python benchmarks/pro_step.py --data FILE [--model MODEL]``.

The peer gives every response a row with a prompt of its own, padded to the longest, through the model as
transformers ships it and a log-softmax over all of its logits; the loss is the same object. Both multiply by
the same library. Forward and backward pass on the same token ids, alternating, in float32; loss and gradients
are compared first. FILE has lists of responses in any of the formats (``rmb-benchmark``'s have 3 to 14).

Writes ``results/pro_step.json``.
"""

from __future__ import annotations

import random
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import alternate, data_name, machine, median, parser, samples_of, seconds, write
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from deft_engine.data.collate import RankedBatch, collate
from deft_engine.data.tokenise import TokenisedSample, tokenise
from deft_engine.logps import RankedLogps, ranked_logps
from deft_engine.losses import PRO
from deft_engine.matrix_products import in_use
from deft_engine.models import load_policy
from deft_engine.templates import resolve_template
from deft_engine.tokenizer import load_tokenizer

LENGTHS = (3, 6)  # responses of a sample
SEED = 5
LOSS, GRADIENT = 1e-4, 1e-3
METHOD = PRO()


def lists(parsed: Namespace, length: int) -> list[TokenisedSample]:
    """So many samples of at least ``length`` responses, cut to that, drawn with a seed."""
    tokenizer = load_tokenizer(parsed.model)
    template = resolve_template("auto", parsed.model, tokenizer)
    enough = [s for s in samples_of(parsed.data) if len(s.responses) >= length]
    if len(enough) < parsed.samples:
        raise SystemExit(f"only {len(enough)} samples have {length} responses; --data takes other files")
    drawn = random.Random(SEED).sample(enough, parsed.samples)
    return [tokenise(s, tokenizer, template, parsed.max_length, range(length)) for s in drawn]


def padded_logps(model: PreTrainedModel, samples: list[TokenisedSample], batch: RankedBatch) -> RankedLogps:
    """The same table of log-probabilities from padded rows."""
    rows = [torch.tensor(s.prompt + response) for s in samples for response in s.responses]
    ids = pad_sequence(rows, batch_first=True)  # [rows, longest]
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    logps = torch.log_softmax(model(input_ids=ids, attention_mask=mask.long()).logits[:, :-1], dim=-1)
    found = logps.gather(2, ids[:, 1:, None]).squeeze(2)  # [rows, longest - 1]
    prompts = torch.tensor([len(s.prompt) for s in samples for _ in s.responses])
    places = torch.arange(1, ids.shape[1])
    of_response = (places >= prompts[:, None]) & mask[:, 1:]
    policy = (found * of_response).sum(dim=1).view(batch.lengths.shape)
    return RankedLogps(policy, batch.lengths, batch.mask, logps.new_empty(0), batch.cells)


def gradients(model: PreTrainedModel, forward: Callable[[], RankedLogps]) -> tuple[float, list[Tensor]]:
    """The mean loss, and its gradient at every parameter."""
    model.zero_grad()
    loss = METHOD(forward()).loss.mean()
    loss.backward()
    return float(loss.detach()), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def _norm(gradient: list[Tensor]) -> float:
    return float(torch.stack([part.norm() for part in gradient]).norm())


def measure(parsed: Namespace, model: PreTrainedModel, length: int) -> dict[str, Any]:
    """Seconds of both sides on lists of ``length``, and how far they are apart."""
    samples = lists(parsed, length)
    batch = collate(samples)
    sides: dict[str, Callable[[], RankedLogps]] = {
        "deft": lambda: ranked_logps(model, batch),
        "padded": lambda: padded_logps(model, samples, batch),
    }
    (loss, ours), (expected, theirs) = (gradients(model, side) for side in sides.values())
    apart = _norm([one - other for one, other in zip(ours, theirs, strict=True)]) / _norm(theirs)
    assert abs(loss - expected) <= LOSS * max(1.0, abs(expected)), (loss, expected)
    assert apart <= GRADIENT, apart

    def step(forward: Callable[[], RankedLogps]) -> Callable[[], float]:
        return lambda: seconds(lambda: METHOD(forward()).loss.mean().backward())

    found = alternate({name: step(side) for name, side in sides.items()}, parsed.rounds)
    medians = {name: median(each) for name, each in found.items()}
    sequences = [len(s.prompt) + len(response) for s in samples for response in s.responses]
    return {
        "tokens": {
            "unique": batch.tokens,
            "unpadded": sum(sequences),
            "padded": max(sequences) * len(sequences),
        },
        "difference": {"loss": abs(loss - expected), "gradient": apart},
        "seconds": {name: {"median": medians[name], "all": each} for name, each in found.items()},
        "speedup": round(medians["padded"] / medians["deft"], 2),
    }


def main() -> None:
    """Measure, print and write."""
    made = parser(__doc__, "pro_step")
    made.add_argument("--data", type=Path, required=True)
    made.add_argument("--model", default="builtin:smollm2")
    made.add_argument("--samples", type=int, default=4, help="of a batch")
    made.add_argument("--max-length", type=int, default=512)
    made.add_argument("--rounds", type=int, default=3)
    parsed = made.parse_args()
    about = machine()
    model = load_policy(parsed.model, "float32").train()
    found = {f"{length} responses": measure(parsed, model, length) for length in LENGTHS}
    asked = {"model": parsed.model, "samples": parsed.samples, "max_length": parsed.max_length}
    write(
        parsed.out,
        {**about, "data": data_name(parsed.data), **asked, "matrix_products": in_use(), **found},
    )


if __name__ == "__main__":
    main()
