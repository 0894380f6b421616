"""What ``torch.compile`` brings to a step: ``python benchmarks/compiled.py [--data FILE --model MODEL]``.

A policy's DPO step (forward and backward pass, reference given) as the engine runs it, and with every
layer's MLP and norms compiled: the passes over memory that are neither matrix products nor attention, which a
compiler can fuse. Alternating, in float32 and, where it is fast, bfloat16, on batches of changing lengths as
in training, so that the shapes are dynamic. Needs a C++ compiler. Writes ``results/compiled.json``: medians,
and what compiling took.
"""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import Any

from distribution_reward import arguments, batch_of
from floating_point import fast_precisions
from measuring import alternate, data_name, machine, median, seconds, write
from transformers import PreTrainedModel

from deft_engine.data.collate import RankedBatch
from deft_engine.logps import ranked_logps
from deft_engine.losses import DPO
from deft_engine.matrix_products import in_use
from deft_engine.models import DtypeName, load_policy

METHOD = DPO()


def compile_parts(model: PreTrainedModel) -> None:
    """MLP and norms of every layer, in place."""
    for layer in model.model.layers:
        for part in (layer.mlp, layer.input_layernorm, layer.post_attention_layernorm):
            part.compile(dynamic=True)


def step(model: PreTrainedModel, batch: RankedBatch) -> float:
    """Forward and backward; the loss."""
    logps = ranked_logps(model, batch)
    loss = METHOD(logps.with_reference(logps.policy.detach() - 0.1)).loss.sum()
    loss.backward()
    model.zero_grad()
    return float(loss.detach())


def measured(parsed: Namespace, dtype: DtypeName, batches: list[RankedBatch]) -> dict[str, Any]:
    """Both forms in one precision."""
    models = {name: load_policy(parsed.model, dtype).train() for name in ("eager", "compiled")}
    compile_parts(models["compiled"])
    losses = {}
    first = {}
    for name, model in models.items():
        first[name] = round(seconds(partial(step, model, batches[0])), 2)
        losses[name] = [step(model, batch) for batch in batches]  # what other shapes compile, too

    def all_batches(model: PreTrainedModel) -> float:
        return seconds(lambda: [step(model, batch) for batch in batches])

    found = alternate({name: partial(all_batches, model) for name, model in models.items()}, parsed.rounds)
    medians = {name: median(values) for name, values in found.items()}
    pairs = zip(losses["eager"], losses["compiled"], strict=True)
    return {
        "seconds": medians,
        "times_as_fast": round(medians["eager"] / medians["compiled"], 3),
        "first_step_seconds": first,
        "largest_difference_of_losses": max(abs(eager - compiled) for eager, compiled in pairs),
    }


def main() -> None:
    """Measure, print and write."""
    parsed = arguments(__doc__, "compiled")
    about = machine()
    lengths = (parsed.max_length, parsed.max_length // 2, parsed.max_length // 4)
    batches = [batch_of(Namespace(**{**vars(parsed), "max_length": length})) for length in lengths]
    write(
        parsed.out,
        {
            **about,
            "data": data_name(parsed.data),
            "model": parsed.model,
            "pairs": parsed.pairs,
            "max_lengths": lengths,
            **{dtype: measured(parsed, dtype, batches) for dtype in fast_precisions()},
            "matrix_products": in_use(),
        },
    )


if __name__ == "__main__":
    main()
