"""A reward model evaluated over HTTP, and what its figures do to the tables it stands behind."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from app.db.models import Job
from app.db.queries import artifact_of_run
from app.db.session import transaction
from app.store import get_store
from deft_engine.data.samples import read_index
from deft_engine.scores import write_scores
from tests.api_world import (
    RANKED,
    Api,
    finish,
    refusal,
    reward_model_job,
    run_stages,
    stage_run_of,
    take,
)
from tests.experiment_world import asked

CAREFUL = [[2.0, 1.0]] * len(RANKED)
OF_LENGTH = [[float(len(r["text"])) for r in row["responses"]] for row in RANKED]


def trained(api: Api, dataset: str, warnings: list[str]) -> dict[str, Any]:
    """A job that made a reward model, whose training told this."""
    job = reward_model_job(api, dataset)
    finish(take(stage_run_of(job, "train_reward")), {"model/config.json": b"{}"}, {"warnings": warnings})
    return job


def evaluated(api: Api, dataset: dict[str, Any], model: str, rewards: list[list[float]]) -> dict[str, Any]:
    """A job that evaluated a reward model which gives these rewards."""
    job = api.job(kind="evaluate", eval_dataset=dataset["id"], model={"reward_model": model})
    with transaction() as session:
        samples = artifact_of_run(session, stage_run_of(job, "import"), "samples.parquet")
        assert samples is not None
        index = read_index(get_store().get(samples.sha256))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.parquet"
        write_scores(path, index, [reward for row in rewards for reward in row])
        finish(take(stage_run_of(job, "score")), {"scores.parquet": path.read_bytes()})
    run_stages("reward_quality")
    return api.get(f"/jobs/{job['id']}").json()


def test_a_reward_model_has_figures_a_report_and_its_pairs(api: Api) -> None:
    dataset = api.dataset()
    job = evaluated(api, dataset, f"job:{trained(api, dataset['id'], [])['id']}", CAREFUL)
    assert job["status"] == "succeeded", job["error"]
    found = job["result"]["reward_quality"]
    assert found["total"]["accuracy"]["value"] == 1
    assert found["total"]["accuracy"]["n"] == 8
    assert set(found["subsets"]) == {"helpful", "harmless"}
    assert [row["n"] for row in found["calibration"]] == [0, 0, 0, 0, 8, 0, 0, 0, 0, 0]  # sigmoid(1) = 0.73
    assert job["result"]["results"]["total"] == found["total"]
    report = api.get(f"/jobs/{job['id']}/artifacts/report.html").text
    assert "Calibration" in report
    assert "0.70 to 0.75" in report
    artifacts = {entry["name"] for entry in api.get(f"/jobs/{job['id']}/artifacts").json()["data"]}
    assert {"results.json", "sample_scores.parquet", "scores.parquet"} <= artifacts


def test_a_table_is_told_when_its_reward_model_is_no_better_than_the_baseline(api: Api) -> None:
    dataset = api.dataset()
    good, told = trained(api, dataset["id"], []), "it was no better in training"
    evaluation = {"reward_model": f"job:{good['id']}", "samples": None, "max_new_tokens": 4}
    base = {"model": {"base": "tiny"}, "deft": {"grader": {"name": "scores"}}, "evaluation": evaluation}
    made = api.post("/experiments", json=asked(dataset["id"], base=base)).json()
    table = f"/experiments/{made['id']}/results"
    assert not any("longer wins" in text for text in api.get(table).json()["warnings"])
    evaluated(api, dataset, f"job:{good['id']}", OF_LENGTH)
    (warning,) = [text for text in api.get(table).json()["warnings"] if "longer wins" in text]
    assert "of 8 held-out pairs" in warning
    assert warning.startswith("used by evaluate: ")
    assert "longer wins" in api.get(f"/experiments/{made['id']}/report.html").text
    other = trained(api, api.dataset(RANKED[:4])["id"], [told])
    base["evaluation"] = {**evaluation, "reward_model": f"job:{other['id']}"}
    second = api.post("/experiments", json=asked(dataset["id"], base=base)).json()
    assert f"used by evaluate: {told}" in api.get(f"/experiments/{second['id']}/results").json()["warnings"]
    base["deft"] = {"grader": {"name": "reward_model", "model": f"job:{other['id']}"}}
    both = api.post("/experiments", json=asked(dataset["id"], base=base)).json()
    with transaction() as session:  # a job that has ended, of which one stage alone used the model
        ended = session.get_one(Job, both["arms"][0]["jobs"][0]["id"])
        ended.result = {"warnings": [f"used by evaluate: {told}"]}
    warnings = api.get(f"/experiments/{both['id']}/results").json()["warnings"]
    assert [text for text in warnings if told in text] == [f"used by evaluate, score: {told}"]


@pytest.mark.parametrize(
    ("model", "pointer", "words"),
    [
        ({"reward_model": "tiny"}, "/model/reward_model", "it is a policy"),
        ({"reward_model": "job:nothing"}, "/model/reward_model", "no such job"),
        ({"reward_model": "tiny", "base": "tiny"}, "/model/base", "no such field"),
    ],
)
def test_what_is_no_reward_model_is_refused(
    api: Api, model: dict[str, str], pointer: str, words: str
) -> None:
    spec = {"kind": "evaluate", "eval_dataset": api.dataset()["id"], "model": model}
    status, _, [(place, _)], detail = refusal(api, spec)
    assert (status, place) == (422, pointer)
    assert words in detail


def test_a_reward_model_is_no_arm(api: Api) -> None:
    dataset = api.dataset()
    rewarding = trained(api, dataset["id"], [])
    arms = [{"name": "r", "kind": "evaluate", "model": {"reward_model": f"job:{rewarding['id']}"}}]
    answer = api.post("/experiments", json=asked(dataset["id"], arms=arms, baseline=None, base={}))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/arms/0/model/reward_model"
