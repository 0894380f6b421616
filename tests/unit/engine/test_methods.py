"""Every method as ``deft run`` runs it, on ragged lists, plain and in DEFT form; how rewards reach a loss."""

from __future__ import annotations

import json
import math
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from deft_engine import stage_process
from deft_engine.data.tokenise import tokenise
from deft_engine.local import run_job
from deft_engine.losses import POLICY_LOSSES, PRO
from deft_engine.models import load_policy
from deft_engine.run import EXIT_FAILED, EXIT_SUCCEEDED, StopRequest, execute
from deft_engine.spec_sections import TrainingSpec
from deft_engine.stages import TrainSpec
from deft_engine.tokenizer import load_tokenizer
from deft_engine.types import Response, Sample
from tests.unit.engine.stage_folders import WORDS, error_of, make_samples, make_stage, points, run_stage

SIZES = (2, 25, 3, 7, 2, 12)
METHODS: list[dict[str, Any]] = [
    {"name": "sft"},
    {"name": "sft", "reduction": "mean"},
    {"name": "dpo"},
    {"name": "dpo", "pairs": "all", "label_smoothing": 0.1},
    {"name": "dpo", "pairs": "plackett_luce"},
    {"name": "rrhf"},
    {"name": "pro"},
    {"name": "pro", "variant": "reference"},
]
DEFT = {"a": 100, "c": 0, "omega": {"grad_share": 0.1}, "grader": {"name": "scores"}}
TRAINING = {"max_steps": 3, "batch_size": 6, "learning_rate": 1e-3, "max_length": 64}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with ragged scored lists; stages run in this process, and all jobs share equal ones."""
    folder = tmp_path_factory.mktemp("methods")
    chance = random.Random(11)
    with (folder / "lists.jsonl").open("w") as file:
        for size in SIZES:
            responses = [
                " ".join(chance.choices(WORDS, k=chance.randint(1, 4))) + f" {n}" for n in range(size)
            ]
            row = {
                "prompt": "Say it.",
                "responses": responses,
                "scores": [chance.random() for _ in responses],
            }
            file.write(json.dumps(row) + "\n")

    def start(stage: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sh", "-c", f"exit {execute(stage, StopRequest())}"], stdin=subprocess.PIPE)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_process, "start", start)
        yield folder


def test_no_method_is_left_out() -> None:
    assert {method["name"] for method in METHODS} == {
        loss.model_fields["name"].default for loss in POLICY_LOSSES
    }


@pytest.mark.parametrize("method", METHODS, ids=lambda method: "-".join(map(str, method.values())))
def test_every_method_trains_on_ragged_lists_plain_and_in_deft_form(
    work: Path, method: dict[str, Any]
) -> None:
    trained = {}
    for form, deft in (("plain", None), ("deft", DEFT)):
        job = {
            "kind": "align", "dataset": str(work / "lists.jsonl"), "model": {"base": "tiny"},
            "method": method, "deft": deft, "training": TRAINING, "evaluation": None,
        }  # fmt: skip
        (work / "job.json").write_text(json.dumps(job))
        assert run_job(work / "job.json", work / "out", StopRequest(), as_json=True) == EXIT_SUCCEEDED
        stage = json.loads((work / "out" / "manifest.json").read_bytes())["stages"][-1]
        folder = work / "out" / stage["folder"]
        trained[form] = (folder / "out" / "model" / "model.safetensors").read_bytes()
        result, found = stage["result"], points(folder)
        assert (result["steps"], result["samples"]) == (3, 18)
        assert all(math.isfinite(value) for value in found.values())
        assert ("deft/r_dis" in result["final"]) == (deft is not None)
        if deft is not None:
            assert found["deft/grad_share", 1] == pytest.approx(0.1, rel=1e-4)
        if method["name"] == "dpo":
            assert found["rewards/margins", 1] == pytest.approx(0, abs=1e-4)  # each met its own reference
        if method["name"] == "pro":
            rounds = {name for name, _ in found if name.startswith("pro/rank_")}
            assert rounds == {f"pro/rank_{k}_loss" for k in range(1, 25)}
    assert trained["plain"] != trained["deft"]


def plain_logps(sample: Sample) -> list[tuple[float, int]]:
    """Log-probability and length of each response, by a forward pass of it alone."""
    model = load_policy("builtin:tiny", "float64")
    found = []
    for index in range(len(sample.responses)):
        tokenised = tokenise(sample, load_tokenizer("builtin:tiny"), "hh", 128, (index,))
        prompt, response = tokenised.prompt, tokenised.responses[0]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        found.append((logits.log_softmax(-1)[range(len(response)), response].sum().item(), len(response)))
    return found


def train_spec(method: PRO) -> TrainSpec:
    return TrainSpec(
        method=method, training=TrainingSpec(max_length=128), distribution_reward=None, levels=(),
        rank_by="reward", dtype="auto", lora=None, template="auto",
    )  # fmt: skip


def rewarded(rewards: list[float | None]) -> Sample:
    (sample,) = make_samples(1, responses=len(rewards))
    responses = [Response(r.text, reward) for r, reward in zip(sample.responses, rewards, strict=True)]
    return Sample(sample.id, sample.subset, sample.prompt, tuple(responses), line=41)


def test_the_file_s_rewards_rank_the_responses_and_sharpen_each_round(tmp_path: Path) -> None:
    sample = rewarded([1.0, 4.0, 2.0])
    spec = train_spec(PRO(variant="reference", sft_weight=0.5))
    folder = make_stage(tmp_path / "run", "train", spec, [sample])
    assert run_stage(folder) == EXIT_SUCCEEDED
    (c, c_tokens), (a, a_tokens), (b, b_tokens) = plain_logps(sample)  # rewards 4, 2, 1 of a, b, c
    s_a, s_b, s_c = a / a_tokens, b / b_tokens, c / c_tokens
    first = math.log(math.exp(3 * s_a) + math.exp(2 * s_b) + math.exp(3 * s_c)) - 3 * s_a
    second = math.log(math.exp(1 * s_b) + math.exp(1 * s_c)) - 1 * s_b
    found = points(folder)
    assert found["pro/rank_1_loss", 1] == pytest.approx(first, rel=1e-4)
    assert found["pro/rank_2_loss", 1] == pytest.approx(second, rel=1e-4)
    assert found["loss", 1] == pytest.approx(first + second - 0.5 * 4 * a, rel=1e-4)


def test_a_response_without_a_reward_is_told_with_its_line_and_what_to_do(tmp_path: Path) -> None:
    folder = make_stage(
        tmp_path / "run", "train", train_spec(PRO(variant="reference")), [rewarded([1.0, None, 2.0])]
    )
    assert run_stage(folder) == EXIT_FAILED
    error = error_of(folder)
    assert error["code"] == "missing_score"
    assert "line 41: response 2 of sample s0 has no reward" in error["message"]
    assert "deft.grader" in error["hint"]
