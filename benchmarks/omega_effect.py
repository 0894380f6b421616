"""What the paper's omega does: ``python benchmarks/omega_effect.py [--data FILE.jsonl --model MODEL]``.

By default on the demo's data with the built-in model after a few SFT steps; FILE has the format ``ranked``
with scores, MODEL is a model folder or a built-in name. For DPO at the reference (policy = reference), as a
training run begins: the share of the gradient that the paper's omegas give the distribution reward (eq 18),
and the omega that a share takes, by the engine's own functions. Writes ``results/omega_effect.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deft_client.demo_data import write_jsonl
from deft_engine.data import ranked
from deft_engine.data.collate import collate
from deft_engine.data.tokenise import TokenisedSample, tokenise
from deft_engine.distribution import Counts, subtract
from deft_engine.distribution_reward import gradient_share, sample_rewards
from deft_engine.heads import output_head
from deft_engine.logps import ranked_logps
from deft_engine.losses import DPO, SFT
from deft_engine.models import load_policy
from deft_engine.omega import omega_for_share
from deft_engine.templates import resolve_template
from deft_engine.tokenizer import load_tokenizer, tokenizer_sha256
from deft_engine.types import Sample

PAPER_OMEGAS = {"DEFT-DPO": 2.5e-6, "DEFT-PRO": 2.5e-5}  # Appendix A.1
SHARES = (0.01, 0.03, 0.1)
SFT_STEPS = 30
BATCHES, BATCH_SIZE = 4, 8
MAX_LENGTH = 256


def read(path: Path, count: int) -> list[Sample]:
    """The first ``count`` rows, responses best first."""
    samples = []
    with path.open(encoding="utf-8") as file:
        for number, line in zip(range(1, count + 1), file, strict=False):
            prompt, responses = ranked.read(json.loads(line))
            samples.append(Sample(f"s{number}", "all", tuple(prompt), tuple(responses), number))
    return samples


def q_diff_of(samples: list[TokenisedSample], vocabulary: int, sha256: str) -> torch.Tensor:
    """``[vocab]``: Q+ from the best responses, Q- from the worst (section 3.2, no middle ones), no EOS."""

    def count(rank: int) -> Counts:
        return np.bincount([t for s in samples for t in s.responses[rank][:-1]], minlength=vocabulary)

    return torch.from_numpy(subtract(count(0), count(-1), sha256).q_diff)


def measure(model_uri: str, data: Path, sft_steps: int) -> dict[str, Any]:
    """Shares and omegas, the mean over some batches."""
    torch.manual_seed(0)
    tokenizer = load_tokenizer(model_uri)
    template = resolve_template("auto", model_uri, tokenizer)
    samples = [
        tokenise(sample, tokenizer, template, MAX_LENGTH, (0, len(sample.responses) - 1))
        for sample in read(data, 600)
    ]
    q_diff = q_diff_of(samples, len(tokenizer), tokenizer_sha256(tokenizer))
    model = load_policy(model_uri, "float32")
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    order = torch.randperm(len(samples)).tolist()
    for step in range(sft_steps):
        batch = collate([samples[order[(step * 8 + i) % len(order)]] for i in range(8)])
        loss = SFT(reduction="mean")(ranked_logps(model, batch)).loss.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    unit_shares, r_dis = [], []
    for start in range(0, BATCHES * BATCH_SIZE, BATCH_SIZE):
        logps = ranked_logps(model, collate([samples[i] for i in order[start : start + BATCH_SIZE]]))
        base = DPO()(logps.with_reference(logps.policy.detach())).loss.mean()
        reward = sample_rewards(logps, output_head(model), q_diff, "normalised", "chosen").mean()
        unit_shares.append(gradient_share(logps, base, reward))
        r_dis.append(reward.item())
    unit_share = statistics.fmean(unit_shares)
    return {
        "sft_steps": sft_steps,
        "samples": len(samples),
        "batches": BATCHES,
        "batch_size": BATCH_SIZE,
        "r_dis": statistics.fmean(r_dis),
        "share_at_omega_1": unit_share,
        "paper_omegas": {
            name: {"omega": o, "grad_share": o * unit_share} for name, o in PAPER_OMEGAS.items()
        },
        "omega_for_share": {f"{share:g}": omega_for_share(share, unit_shares) for share in SHARES},
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="JSONL of the format ranked; default: the demo's data")
    parser.add_argument("--model", default="builtin:tiny")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/omega_effect.json")
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = parsed.data or Path(folder) / "demo.jsonl"
        if parsed.data is None:
            write_jsonl(data, 600, seed=7)
        # only the built-in model has to be taught the language first
        measured = measure(parsed.model, data, SFT_STEPS if parsed.model == "builtin:tiny" else 0)
    names = {
        "data": parsed.data.name if parsed.data else "deft_client.demo_data, 600 rows, seed 7",
        "model": parsed.model if parsed.model.startswith("builtin:") else Path(parsed.model).name,
    }
    text = json.dumps(names | measured, indent=2) + "\n"
    parsed.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
