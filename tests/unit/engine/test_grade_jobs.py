"""A whole ``grade`` job by each grader: planned from a spec, carried out, and graded as the grader says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from deft_client.demo_data import write_jsonl
from deft_engine.canonical import canonical_json
from deft_engine.graders import GRADERS
from deft_engine.local import LocalResolver
from deft_engine.local_artifacts import local_inputs, stage_folder
from deft_engine.models import load_policy, new_reward_model, save_model
from deft_engine.planning import plan_job
from deft_engine.run import EXIT_SUCCEEDED, StageRequest, StopRequest, execute
from deft_engine.specs import job_spec_adapter
from deft_engine.tokenizer import load_tokenizer

TINY = "builtin:tiny"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scored data of pairs and lists, a reward model, and a policy that has moved."""
    folder = tmp_path_factory.mktemp("world")
    write_jsonl(folder / "plain.jsonl", 40, seed=3)
    rows = [json.loads(line) for line in (folder / "plain.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row["responses"] = row["responses"][: 2 + number % 2]
        row["scores"] = [-rank * (1 + number % 7) / 2 + number % 5 for rank in range(len(row["responses"]))]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tokenizer = load_tokenizer(TINY)
    save_model(new_reward_model(TINY, "float32"), tokenizer, folder / "judge", "reward_model", "hh")
    policy = load_policy(TINY, "float32")
    with torch.no_grad():
        policy.get_input_embeddings().weight.mul_(1.05)
    save_model(policy, tokenizer, folder / "tuned", "policy", "hh")
    return folder


def run_job(world: Path, out: Path, grader: dict[str, Any]) -> dict[str, Path]:
    """Every stage in this process; artifact name -> its path."""
    spec = {
        "kind": "grade",
        "dataset": str(world / "data.jsonl"),
        "model": {"base": "tiny"},
        "deft": {"a": 20, "c": 20, "grader": grader},
    }
    plan = plan_job(job_spec_adapter.validate_python(spec), LocalResolver())
    found: dict[str, Path] = {}
    for planned in plan.stages:
        folder = stage_folder(out, planned.stage, planned.fingerprint)
        folder.mkdir(parents=True)
        request = StageRequest(
            stage=planned.stage,
            fingerprint=planned.fingerprint,
            spec=planned.spec,
            inputs=local_inputs(planned, plan, out),
            input_ids={},
        )
        (folder / "stage.json").write_bytes(canonical_json(request.model_dump(mode="json")))
        assert execute(folder, StopRequest()) == EXIT_SUCCEEDED
        found |= {path.name: path for path in (folder / "out").iterdir()}
    return found


JOBS: list[tuple[dict[str, Any], str]] = [
    ({"name": "scores"}, "best"),
    ({"name": "reward_model", "model": "judge"}, "best"),
    ({"name": "random"}, "first"),
    ({"name": "length"}, "first"),
    ({"name": "margin"}, "margin"),
    ({"name": "margin", "model": "judge"}, "margin"),
    ({"name": "distribution"}, "first"),
    ({"name": "distribution", "difference": True}, "margin"),
    ({"name": "implicit", "policy": "tuned"}, "-margin"),
    ({"name": "implicit", "policy": "tuned", "direction": "high"}, "margin"),
]


def expected_score(rewards: list[float | None], rule: str, ranks: bool) -> float:
    """In words: of a list that the rewards rank the highest and lowest, else the ends as annotated."""
    known = [reward for reward in rewards if reward is not None]
    by_reward = ranks and len(rewards) > 2
    best, worst = (max(known), min(known)) if by_reward else (known[0], known[-1])
    return {"best": best, "first": best, "margin": best - worst, "-margin": worst - best}[rule]


@pytest.mark.parametrize(("grader", "rule"), JOBS, ids=[f"{g['name']}-{n}" for n, (g, _) in enumerate(JOBS)])
def test_a_grade_job_by_each_grader(grader: dict[str, Any], rule: str, world: Path, tmp_path: Path) -> None:
    named = {key: str(world / value) for key, value in grader.items() if key in ("model", "policy")}
    artifacts = run_job(world, tmp_path, {**grader, **named})
    rewards: dict[str, list[float | None]] = {}
    for row in pq.read_table(artifacts["scores.parquet"]).to_pylist():
        rewards.setdefault(row["sample_id"], []).append(row["reward"])
    rows = pq.read_table(artifacts["levels.parquet"]).to_pylist()
    ranks = grader["name"] in ("scores", "reward_model", "margin")
    for row in rows:
        expected = expected_score(rewards[row["sample_id"]], rule, ranks)
        assert row["score"] == pytest.approx(expected, abs=1e-12)
    for subset in {row["subset"] for row in rows}:
        members = [row for row in rows if row["subset"] == subset]
        of_a, rest = (
            [row["score"] for row in members if (row["level"] == "A") == in_a] for in_a in (True, False)
        )
        assert len(of_a) == -(-len(members) // 5)
        assert min(of_a) >= max(rest)
    assert len({row["score"] for row in rows}) > 4, "the grader tells samples apart"
    assert "qdiff.safetensors" in artifacts
    assert np.isfinite([row["score"] for row in rows]).all()


def test_every_grader_has_its_job() -> None:
    names = {grader["name"] for grader, _ in JOBS}
    assert names == {grader.model_fields["name"].default for grader in GRADERS}
