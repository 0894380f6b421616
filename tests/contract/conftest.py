"""The API on a fresh database with something of everything in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.db.models import Role
from app.main import create_app
from tests.api_world import RANKED, Api, finish, headers_for, jsonl, run_stages, stage_run_of, take


@pytest.fixture
def api(service_settings: None) -> Iterator[Api]:
    with TestClient(create_app(), raise_server_exceptions=False) as http:
        yield Api(http, headers_for(Role.RESEARCHER), headers_for(Role.VIEWER), headers_for(Role.ADMIN))


@pytest.fixture
def known(api: Api) -> dict[str, str]:
    """Ids that exist, by the name of the path parameter that takes them."""
    bad = {"prompt": "Q?", "responses": ["one"]}
    dataset = api.dataset([*RANKED, bad])["id"]
    job = api.grade_job(dataset)
    run_stages("score", "grade")
    finish(take(stage_run_of(job, "distribution")), {"qdiff.safetensors": b"q"}, {"positive": 1})
    return {"dataset_id": dataset, "job_id": job["id"], "name": "levels.parquet", "key_id": "key_unknown",
            "experiment_id": _experiment(api, dataset),
            "generations_id": _generations(api, dataset)}  # fmt: skip


def _generations(api: Api, dataset: str) -> str:
    """Answers to a dataset, one row of which is not used."""
    rows = [{"sample_id": RANKED[0]["id"], "response": "x"}, {"response": "y"}]
    sent = api.post("/generations", files={"file": ("a.jsonl", jsonl(rows))}, data={"dataset": dataset})
    run_stages("import_generations")
    return str(sent.json()["id"])


def _experiment(api: Api, dataset: str) -> str:
    """An experiment of one arm, nothing of which has run."""
    arms = [{"name": "DPO", "preset": "dpo"}]
    base = {"model": {"base": "tiny"}}
    asked = {"dataset": dataset, "eval_dataset": dataset, "base": base, "arms": arms, "seeds": [1]}
    return str(api.post("/experiments", json=asked).json()["id"])
