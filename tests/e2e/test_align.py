"""Reward model, grading, DEFT-DPO and plain DPO, evaluated: what each job leaves behind."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from deft_client.models import Dataset, Job
from tests.e2e.e2e_data import DEFT_A, EVALUATED, STEPS
from tests.whole_service import WholeService

pytestmark = pytest.mark.timeout(900)  # a fixture waits for all stages of its job

REWARD_SERIES = {
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "grad_norm",
    "learning_rate",
    "truncated",
    "tokens_per_second",
}
DPO_SERIES = REWARD_SERIES | {"logps/chosen", "logps/rejected"}
DEFT_SERIES = DPO_SERIES | {"deft/r_dis", "deft/grad_share", "deft/omega"}
FIGURES = {"reward", "reward_raw", "bleu", "bleu_pro_char", "length"}


def series(service: WholeService, job: Job) -> dict[str, list[int]]:
    """Steps of each metric."""
    page = service.client.jobs.metrics(job.id)
    return {each.name: [step for step, _, _ in each.points] for each in page.data}


def stages(job: Job) -> list[str]:
    return [stage.name for stage in job.stages]


def test_every_step_of_training_has_a_point(
    whole_service: WholeService, reward_model: Job, aligned: Job, plain: Job
) -> None:
    every_step = list(range(1, STEPS + 1))
    for job, names in ((reward_model, REWARD_SERIES), (aligned, DEFT_SERIES), (plain, DPO_SERIES)):
        found = series(whole_service, job)
        assert {name for name in found if not name.startswith(("score/", "generate/", "eval/"))} == names
        for name in names:
            assert found[name] == every_step, (job.name, name)
    assert {"eval/reward", "eval/bleu", "generate/tokens_per_second"} <= series(whole_service, aligned).keys()


def test_the_plan_grades_before_it_trains(aligned: Job, plain: Job) -> None:
    assert set(stages(aligned)) == {
        "import", "score", "grade", "distribution", "reference", "train", "generate", "evaluate"
    }  # fmt: skip
    assert set(stages(plain)) == {"import", "reference", "train", "generate", "evaluate"}
    ended = {stage.name: stage.finished_at for stage in aligned.stages}
    started = {stage.name: stage.started_at for stage in aligned.stages}
    for before, after in (("score", "grade"), ("grade", "distribution"), ("distribution", "train")):
        assert ended[before] <= started[after]  # type: ignore[operator]


def test_the_spec_shows_what_the_preset_filled(aligned: Job, plain: Job) -> None:
    assert aligned.spec["method"] == {
        **aligned.spec["method"],
        "name": "dpo",
        "beta": 0.1,
        "sft_weight": 0.05,
    }
    assert aligned.spec["deft"]["c"] == 12.5
    assert aligned.spec["deft"]["omega"] == {"grad_share": 0.03, "hold": False}
    assert aligned.spec["training"]["max_steps"] == STEPS
    assert plain.spec["deft"] is None


def test_level_a_is_the_best_share_of_each_subset(
    whole_service: WholeService, train_data: Dataset, aligned: Job, tmp_path: Path
) -> None:
    client = whole_service.client
    levels = pq.read_table(client.jobs.download(aligned.id, "levels.parquet", tmp_path / "l")).to_pylist()
    scores = pq.read_table(client.jobs.download(aligned.id, "scores.parquet", tmp_path / "s")).to_pylist()
    order = {row["sample_id"]: place for place, row in enumerate(levels)}
    best: dict[str, float] = {}
    for row in scores:
        if row["reward"] is not None:
            best[row["sample_id"]] = max(best.get(row["sample_id"], -math.inf), row["reward"])
    responses = {s.id: len(s.responses) for s in client.datasets.samples(train_data.id, limit=100).data}
    first = {row["sample_id"]: row["reward"] for row in scores if row["rank"] == 0}
    assert train_data.subsets is not None
    for subset, size in train_data.subsets.items():
        members = [row for row in levels if row["subset"] == subset]
        assert len(members) == size
        for row in members:
            sample = row["sample_id"]
            assert row["score"] == (first if responses[sample] == 2 else best)[sample]
        ranked = sorted(members, key=lambda row: (-row["score"], order[row["sample_id"]]))
        a, c = math.ceil(DEFT_A * size / 100), math.ceil(12.5 * size / 100)
        assert [row["level"] for row in ranked] == ["A"] * a + ["B"] * (size - a - c) + ["C"] * c
    in_a = {row["sample_id"] for row in levels if row["level"] == "A"}
    shown = client.datasets.samples(train_data.id, level="A", limit=100).data
    assert {sample.id for sample in shown} == in_a
    assert aligned.result is not None
    assert aligned.result["grade"]["levels"]["A"] == len(in_a)


def test_q_diff_is_a_difference_of_two_distributions(
    whole_service: WholeService, aligned: Job, tmp_path: Path
) -> None:
    path = whole_service.client.jobs.download(aligned.id, "qdiff.safetensors", tmp_path / "qdiff.safetensors")
    found = load_file(path)
    assert found["q_pos"].sum() == pytest.approx(1)
    assert found["q_neg"].sum() == pytest.approx(1)
    np.testing.assert_allclose(found["q_diff"], found["q_pos"] - found["q_neg"], atol=1e-15)


def test_the_result_tells_omega_and_every_figure(aligned: Job, plain: Job) -> None:
    assert aligned.result is not None
    assert plain.result is not None
    assert aligned.result["train"]["omega"] > 0
    assert aligned.result["train"]["grad_share"] > 0
    assert plain.result["train"]["omega"] is None
    for job in (aligned, plain):
        evaluated = job.result["evaluate"]  # type: ignore[index]
        assert evaluated["total"].keys() == FIGURES
        for figure in FIGURES:
            total, parts = evaluated["total"][figure], [s[figure] for s in evaluated["subsets"].values()]
            assert total["n"] == sum(part["n"] for part in parts) == EVALUATED
            assert total["signature"]
            if figure != "bleu":  # a corpus figure; the others are means over samples
                mean = sum(part["value"] * part["n"] for part in parts) / EVALUATED
                assert total["value"] == pytest.approx(mean)


def test_one_reward_model_for_both_ends_is_warned_of(aligned: Job, plain: Job) -> None:
    assert any("r_eval is r_train" in warning for warning in aligned.result["warnings"])  # type: ignore[index]
    assert not any("r_eval is r_train" in warning for warning in plain.result["warnings"])  # type: ignore[index]


def test_the_base_model_is_evaluated_alone(whole_service: WholeService, align_spec: dict[str, Any]) -> None:
    job = whole_service.run(
        {"kind": "evaluate", **{name: align_spec[name] for name in ("eval_dataset", "model", "evaluation")}}
    )
    assert stages(job) == ["import", "generate", "evaluate"]
    assert job.result is not None
    assert job.result["evaluate"]["total"]["reward"]["n"] == EVALUATED


def test_artifacts_are_what_they_are_announced_to_be(whole_service: WholeService, aligned: Job) -> None:
    artifacts = whole_service.client.jobs.artifacts(aligned.id)
    wanted = {"scores.parquet", "levels.parquet", "qdiff.safetensors", "generations.jsonl", "results.json"}
    assert {*wanted, "manifest.json", "model/model.safetensors"} <= {each.name for each in artifacts}
    for artifact in artifacts:
        answer = whole_service.http.get(f"/jobs/{aligned.id}/artifacts/{artifact.name}")
        assert hashlib.sha256(answer.content).hexdigest() == artifact.sha256, artifact.name
        assert len(answer.content) == artifact.size
        assert answer.headers["ETag"] == f'"{artifact.sha256}"'
        if artifact.name == "generations.jsonl":
            rows = [json.loads(line) for line in answer.text.splitlines()]
            assert len(rows) == EVALUATED
            assert all(
                {"sample_id", "subset", "prompt", "response", "reference"} <= row.keys() for row in rows
            )


def test_models_load_with_from_pretrained(
    whole_service: WholeService, reward_model: Job, aligned: Job, tmp_path: Path
) -> None:
    folder = whole_service.client.jobs.download(aligned.id, "model", tmp_path / "policy")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    policy, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    ids = tokenizer("\n\nHuman: How do I make tea?\n\nAssistant:", return_tensors="pt")
    made = policy.generate(**ids, max_new_tokens=3, do_sample=False)
    assert made.shape[1] - ids["input_ids"].shape[1] in (1, 2, 3)

    folder = whole_service.client.jobs.download(reward_model.id, "model", tmp_path / "reward")
    judge, loading = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    with torch.no_grad():
        assert judge(**ids).logits.shape == (1, 1)
