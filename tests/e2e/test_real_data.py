"""Every method trains on real preferences through the service, to evaluated answers.

On lists in its DEFT form, on pairs in its plain one.
"""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import pytest

from deft_client.models import Dataset, Job
from tests.whole_service import WholeService

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TRAINED, EVALUATED, STEPS = 24, 6, 3
TRAINING = {"max_steps": STEPS, "batch_size": 4, "max_length": 256, "learning_rate": 1e-4}
LEVEL_A = 25
LISTS, PAIRS = "rmb-benchmark/ranked_partial.train.jsonl.gz", "hh-pairs-train/train.jsonl.gz"
FORMATS = {LISTS: "ranked", PAIRS: "pairwise"}
METHODS: dict[str, dict[str, Any]] = {
    "sft": {"name": "sft"},
    "dpo": {"name": "dpo"},
    "dpo, all pairs": {"name": "dpo", "pairs": "all", "label_smoothing": 0.1},
    "dpo, plackett_luce": {"name": "dpo", "pairs": "plackett_luce"},
    "rrhf": {"name": "rrhf"},
    "pro": {"name": "pro"},
    "pro, reference": {"name": "pro", "variant": "reference"},
}
NEEDS_REWARDS = "pro, reference"  # which HH's pairs do not carry, and their plain form does not make
CASES = [(LISTS, method) for method in METHODS]
CASES += [(PAIRS, method) for method in METHODS if method != NEEDS_REWARDS]


@pytest.fixture(scope="module")
def data(
    request: pytest.FixtureRequest,
    shared_data: Path,
    whole_service: WholeService,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Dataset, Dataset, Job]:
    """The file's first rows to train on, others to evaluate on, and a reward model of the former."""
    with gzip.open(shared_data / request.param, "rt", encoding="utf-8") as file:
        lines = [next(file) for _ in range(TRAINED + EVALUATED)]
    folder = tmp_path_factory.mktemp("real")
    datasets = []
    for name, part in (("train", lines[:TRAINED]), ("held_out", lines[TRAINED:])):
        (folder / f"{name}.jsonl").write_text("".join(part), encoding="utf-8")
        datasets.append(whole_service.dataset(folder / f"{name}.jsonl"))
    reward_model = whole_service.run(
        {
            "kind": "reward_model",
            "dataset": datasets[0].id,
            "model": {"base": "tiny"},
            "training": TRAINING,
        }
    )
    assert [found.format for found in datasets] == [FORMATS[request.param]] * 2
    assert [found.samples for found in datasets] == [TRAINED, EVALUATED]
    return datasets[0], datasets[1], reward_model


@pytest.mark.parametrize(("data", "method"), CASES, indirect=["data"], scope="module")
def test_a_method_trains_to_evaluated_answers(
    whole_service: WholeService, data: tuple[Dataset, Dataset, Job], method: str
) -> None:
    train, held_out, reward_model = data
    judge, by_deft = f"job:{reward_model.id}", train.format == FORMATS[LISTS]
    deft = {
        "a": LEVEL_A,
        "omega": {"grad_share": 0.03},
        "grader": {"name": "reward_model", "model": judge},
    }
    job = whole_service.run(
        {
            "kind": "align",
            "name": f"{method} on {train.format}",
            "dataset": train.id,
            "eval_dataset": held_out.id,
            "model": {"base": "tiny"},
            "method": METHODS[method],
            "deft": deft if by_deft else None,
            "training": TRAINING,
            "evaluation": {"reward_model": judge, "samples": None, "max_new_tokens": 8},
        }
    )
    assert job.result is not None
    assert job.result["evaluate"]["total"]["reward"]["n"] == EVALUATED
    assert 0 < job.result["evaluate"]["total"]["reward"]["value"] < 100
    series = {each.name: each.points for each in whole_service.client.jobs.metrics(job.id).data}
    assert [step for step, _, _ in series["loss"]] == list(range(1, STEPS + 1))
    assert all(math.isfinite(value) and value > 0 for _, value, _ in series["grad_norm"])
    assert ("deft/r_dis" in series) == by_deft
    if by_deft:
        chosen = job.result["grade"]["levels"]["A"]
        assert 0 < chosen < TRAINED
        assert job.result["train"]["omega"] > 0
