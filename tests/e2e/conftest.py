"""Data and jobs that the end-to-end tests share: each is made once, when the first test asks for it."""

from __future__ import annotations

from typing import Any

import pytest

from deft_client.models import Dataset, Job
from tests.e2e.e2e_data import DEFT_A, EVALUATED, TRAINING, Files, write_files
from tests.whole_service import WholeService


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("preferences"))


@pytest.fixture(scope="session")
def train_data(whole_service: WholeService, files: Files) -> Dataset:
    return whole_service.dataset(files.train)


@pytest.fixture(scope="session")
def eval_data(whole_service: WholeService, files: Files) -> Dataset:
    return whole_service.dataset(files.evaluation)


@pytest.fixture(scope="session")
def reward_model(whole_service: WholeService, train_data: Dataset) -> Job:
    return whole_service.run(
        {
            "kind": "reward_model",
            "name": "r_train",
            "dataset": train_data.id,
            "model": {"base": "tiny"},
            "training": TRAINING,
        }
    )


@pytest.fixture(scope="session")
def align_spec(train_data: Dataset, eval_data: Dataset, reward_model: Job) -> dict[str, Any]:
    """DEFT-DPO; r_eval is r_train, which the result must warn of."""
    return {
        "kind": "align",
        "name": "DEFT-DPO",
        "dataset": train_data.id,
        "eval_dataset": eval_data.id,
        "preset": "deft-dpo",
        "model": {"base": "tiny"},
        "deft": {"a": DEFT_A, "grader": {"name": "reward_model", "model": f"job:{reward_model.id}"}},
        "training": TRAINING,
        "evaluation": {
            "reward_model": f"job:{reward_model.id}",
            "samples": EVALUATED,
            "max_new_tokens": 8,
        },
    }


@pytest.fixture(scope="session")
def grade_spec(align_spec: dict[str, Any]) -> dict[str, Any]:
    """Only the grading of ``align_spec``."""
    return {
        "kind": "grade",
        **{name: align_spec[name] for name in ("dataset", "model", "deft")},
    }


@pytest.fixture(scope="session")
def aligned(whole_service: WholeService, align_spec: dict[str, Any]) -> Job:
    return whole_service.run(align_spec)


@pytest.fixture(scope="session")
def plain(whole_service: WholeService, align_spec: dict[str, Any]) -> Job:
    """The base method on all data."""
    return whole_service.run({**align_spec, "name": "DPO", "preset": "dpo", "deft": None})
