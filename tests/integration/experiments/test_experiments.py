"""Experiments over HTTP: jobs that share their stages, refusals with their place, cancelling, roles."""

from __future__ import annotations

from collections import Counter

import sqlalchemy as sa

from app.db.models import ExperimentJob, Job, StageRun
from app.db.session import transaction
from tests.api_world import Api, finish, run_stages, take
from tests.experiment_world import BASE, TWO, asked, create


def stage_counts() -> Counter[str]:
    with transaction() as session:
        return Counter(session.scalars(sa.select(StageRun.stage)))


def test_arms_times_seeds_are_jobs_that_share_their_stages(api: Api) -> None:
    dataset = api.dataset()["id"]
    answer = api.post("/experiments", json=asked(dataset))
    made = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/experiments/{made['id']}"
    assert made["id"].startswith("exp_")
    assert (made["object"], made["status"], made["seeds"]) == ("experiment", "queued", [1, 2])
    assert [(arm["name"], arm["baseline"]) for arm in made["arms"]] == [("DPO", None), ("DEFT-DPO", "DPO")]
    jobs = [job for arm in made["arms"] for job in arm["jobs"]]
    assert [job["seed"] for job in jobs] == [1, 2, 1, 2]
    assert all(job["status"] == "queued" for job in jobs)
    spec = api.get(f"/jobs/{jobs[3]['id']}").json()["spec"]
    assert (spec["name"], spec["preset"]) == ("table: DEFT-DPO, seed 2", "deft-dpo")
    assert (spec["training"]["seed"], spec["training"]["max_steps"], spec["deft"]["a"]) == (2, 1, 25)
    assert stage_counts() == {
        "import": 1, "score": 1, "grade": 1, "distribution": 1, "reference": 2,
        "train": 4, "generate": 4, "evaluate": 4,
    }  # fmt: skip
    assert api.get(f"/experiments/{made['id']}").json() == made
    assert api.get("/experiments").json()["data"] == [made]


def test_eleven_arms_are_scored_and_graded_once_in_the_database(api: Api) -> None:
    arms = [{"name": f"share {n}", "preset": "deft-dpo", "deft": {"omega": n}} for n in range(11)]
    made = create(api, api.dataset()["id"], arms=arms, seeds=[1], baseline="share 0")
    assert len(made["arms"]) == 11
    counts = stage_counts()
    assert (counts["score"], counts["grade"], counts["reference"], counts["train"]) == (1, 1, 1, 11)
    run_stages("score", "grade")
    assert api.get(f"/experiments/{made['id']}").json()["status"] == "running"


def test_a_preset_fills_arms_and_baselines(api: Api) -> None:
    dataset = api.dataset()["id"]
    fields = {key: value for key, value in asked(dataset, preset="paper-table-3", seeds=[7]).items()
              if key not in ("arms", "baseline")}  # fmt: skip
    made = api.post("/experiments", json=fields).json()
    assert [arm["name"] for arm in made["arms"]][:3] == ["DEFT-PRO", "DEFT-PRO - D^A", "DEFT-PRO - R_dis"]
    assert [arm["baseline"] for arm in made["arms"]] == [None, *["DEFT-PRO"] * 2, None, *["DEFT-DPO"] * 2]
    assert made["spec"]["arms"][1]["deft"] == {"levels": ["A", "B", "C"]}


def test_the_same_request_with_its_key_creates_once(api: Api) -> None:
    dataset = api.dataset()["id"]
    key = {"Idempotency-Key": "one"}
    first, again = (api.post("/experiments", json=asked(dataset), headers=key) for _ in range(2))
    assert first.json() == again.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    other = api.post("/experiments", json=asked(dataset, name="other"), headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    with transaction() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(ExperimentJob)) == 4


def test_cancelling_ends_its_jobs_and_no_others(api: Api) -> None:
    dataset = api.dataset()["id"]
    made = create(api, dataset)
    other = api.grade_job(dataset)
    cancelled = api.post(f"/experiments/{made['id']}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert {job["status"] for arm in cancelled["arms"] for job in arm["jobs"]} == {"cancelled"}
    assert cancelled["finished_at"]
    assert api.get(f"/jobs/{other['id']}").json()["status"] == "queued"
    again = api.post(f"/experiments/{made['id']}/cancel")
    assert again.status_code == 409
    assert (again.json()["experiment_status"], again.json()["allowed"]) == ("cancelled", [])


def test_one_failed_job_fails_the_experiment_when_the_others_have_ended(api: Api) -> None:
    dataset = api.dataset()["id"]
    made = create(api, dataset, seeds=[1])
    plain, deft = (arm["jobs"][0]["id"] for arm in made["arms"])
    api.post(f"/jobs/{deft}/cancel")
    assert api.get(f"/experiments/{made['id']}").json()["status"] == "running"
    api.post(f"/jobs/{plain}/cancel")
    assert api.get(f"/experiments/{made['id']}").json()["status"] == "cancelled"


def test_cost_counts_a_shared_stage_once(api: Api) -> None:
    dataset = api.dataset()["id"]
    made = create(api, dataset)
    with transaction() as session:
        ready = session.scalars(sa.select(StageRun.id).where(StageRun.stage == "reference")).all()
        session.execute(sa.update(StageRun).where(StageRun.id.in_(ready)).values(status="ready"))
    for run in ready:
        finish(take(run), {"reference.parquet": b""}, {"tokens": 10})
    cost = api.get(f"/experiments/{made['id']}").json()["cost"]
    assert (cost["tokens"], cost["trained_tokens"], cost["steps"]) == (20, 0, 0)  # of four jobs
    assert cost["runs"] == 3  # with the import


def test_faults_are_told_with_their_place_in_the_request(api: Api) -> None:
    dataset = api.dataset()["id"]
    unscored = api.dataset([{"prompt": f"Q{i}?", "responses": ["good", "bad"]} for i in range(4)])["id"]
    model = {"base": "no such model"}
    for fields, pointer, code in (
        ({"arms": [{**TWO[0], "speed": 1}]}, "/arms/0/speed", "extra_forbidden"),
        ({"arms": [TWO[0], {**TWO[1], "deft": {"a": 0}}]}, "/arms/1/deft/a", "greater_than"),
        ({"arms": [TWO[0], TWO[0]]}, "/arms/1/name", "value_error"),
        ({"baseline": "PPO"}, "/baseline", "unknown_baseline"),
        ({"seeds": list(range(101))}, "/seeds", "too_many_jobs"),
        ({"seeds": list(range(201))}, "/seeds", "too_long"),
        ({"preset": "paper-table-1"}, "/preset", "value_error"),
        ({"eval_dataset": None}, "/eval_dataset", "string_type"),
        ({"eval_dataset": "ds_unknown"}, "/eval_dataset", "unknown_dataset"),
        ({"arms": [TWO[0], {**TWO[1], "dataset": "ds_unknown"}]}, "/arms/1/dataset", "unknown_dataset"),
        ({"base": {**BASE, "model": model}}, "/base/model/base", "invalid_spec"),
        ({"arms": [TWO[0], {**TWO[1], "model": model}]}, "/arms/1/model/base", "invalid_spec"),
        ({"arms": [TWO[0], {**TWO[1], "dataset": unscored}]}, "/base/deft/grader", "no_scores"),
    ):
        answer = api.post("/experiments", json=asked(dataset, **fields))
        assert answer.status_code == 422, (fields, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert (pointer, code) in [(e["pointer"], e["code"]) for e in answer.json()["errors"]], answer.text
    with transaction() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Job)) == 0
    assert api.get("/experiments").json()["data"] == []


def test_who_may_what(api: Api) -> None:
    dataset = api.dataset()["id"]
    made = create(api, dataset)
    address = f"/experiments/{made['id']}"
    assert api.post("/experiments", json=asked(dataset), headers=api.viewer).status_code == 403
    assert api.post(f"{address}/cancel", headers=api.viewer).status_code == 403
    assert api.get(address, headers=api.viewer).status_code == 200
    assert api.http.get(address).status_code == 401
    assert api.get("/experiments/exp_unknown").status_code == 404
    assert api.post("/experiments/exp_unknown/cancel").status_code == 404


def test_the_page_is_for_readers_and_holds_no_data(api: Api) -> None:
    made = create(api, api.dataset()["id"], name="<b>table</b>")
    address = f"/experiments/{made['id']}/view"
    refused = api.http.get(address, follow_redirects=False)
    assert (refused.status_code, refused.headers["location"]) == (303, f"/login?next={address}")
    own = {"Sec-Fetch-Site": "same-origin"}
    key = api.viewer["Authorization"].removeprefix("Bearer ")
    api.http.post("/login", data={"key": key}, headers=own, follow_redirects=False)
    page = api.http.get(address)
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "&lt;b&gt;table&lt;/b&gt;" in page.text
    assert "DEFT-DPO" not in page.text
    assert api.http.get("/experiments/exp_unknown/view").status_code == 404
