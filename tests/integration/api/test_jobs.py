"""Jobs: sent, estimated, listed and moved."""

from __future__ import annotations

from typing import Any

from app.db.claims import fail
from app.db.events import append_event
from app.db.session import transaction
from app.settings import get_settings
from tests.api_world import (
    ENDED,
    RANKED,
    Api,
    align,
    finish,
    make_ready,
    refusal,
    reward_model_job,
    run_stages,
    stage_run_of,
    take,
)


def test_a_job_is_created_with_its_plan(api: Api) -> None:
    dataset = api.dataset()
    answer = api.post("/jobs", json=align(dataset["id"], name="first", preset="deft-dpo", deft={"a": 25}))
    assert answer.status_code == 201, answer.text
    job = answer.json()
    assert answer.headers["location"] == f"/jobs/{job['id']}" == job["links"]["self"]
    assert (job["object"], job["kind"], job["name"], job["status"]) == ("job", "align", "first", "queued")
    assert job["spec"]["deft"]["a"] == 25  # given
    assert job["spec"]["deft"]["c"] == 12.5  # the preset's
    assert job["spec"]["training"]["max_grad_norm"] == 1.0  # the default
    names = [stage["name"] for stage in job["stages"]]
    assert names == ["import", "score", "grade", "distribution", "reference", "train", "generate", "evaluate"]
    assert [stage["reused"] for stage in job["stages"]] == [True] + 7 * [False]
    assert job["stage"] == "score"
    assert (job["progress"], job["attempt"], job["error"], job["result"]) == (None, 0, None, None)
    assert api.get(f"/jobs/{job['id']}").json() == job
    assert any("training data" in warning for warning in job["warnings"])


def test_the_job_object_follows_its_stages(api: Api) -> None:
    job = api.grade_job(api.dataset()["id"])
    taken = take(stage_run_of(job, "score"))
    running = api.get(f"/jobs/{job['id']}").json()
    assert (running["status"], running["stage"], running["attempt"]) == ("running", "score", 1)
    assert running["max_attempts"] == get_settings().max_attempts
    error = {"code": "invalid_data", "message": "line 3: no", "hint": "mend it", "retryable": False}
    with transaction() as session:
        fail(session, taken, error=error, ended=ENDED)
    failed = api.get(f"/jobs/{job['id']}").json()
    assert (failed["status"], failed["stage"]) == ("failed", "score")
    assert (failed["error"]["code"], failed["error"]["hint"]) == ("invalid_data", "mend it")
    assert "line 3" in failed["error"]["message"]
    attempts = api.get(f"/jobs/{job['id']}/attempts").json()["data"]
    first = api.get(f"/jobs/{job['id']}/attempts", params={"limit": 1}).json()
    assert (first["data"], first["has_more"]) == (attempts[:1], True)
    rest = api.get(f"/jobs/{job['id']}/attempts", params={"limit": 100, "after": attempts[0]["id"]}).json()
    assert (rest["data"], rest["has_more"]) == (attempts[1:], False)
    mine = [entry for entry in attempts if entry["stage"] == "score"]
    assert [(entry["number"], entry["status"], entry["log"]) for entry in mine] == [(1, "failed", ENDED.log)]


def test_a_live_jobs_model_is_waited_for(api: Api) -> None:
    dataset = api.dataset()["id"]
    reward = reward_model_job(api, dataset)
    job = api.job(**align(dataset, deft={"grader": {"name": "reward_model", "model": f"job:{reward['id']}"}}))
    assert next(s["status"] for s in job["stages"] if s["name"] == "score") == "waiting"
    finish(take(stage_run_of(reward, "train_reward")), {"model/config.json": b"{}"}, {"steps": 1})
    again = api.get(f"/jobs/{job['id']}").json()
    assert next(s["status"] for s in again["stages"] if s["name"] == "score") == "ready"


def test_a_grader_waits_for_the_policy_of_a_live_job(api: Api) -> None:
    dataset = api.dataset()["id"]
    policy = api.job(**align(dataset))
    grader = {"name": "implicit", "policy": f"job:{policy['id']}"}
    job = api.job(kind="grade", name="g", dataset=dataset, model={"base": "tiny"}, deft={"grader": grader})
    assert [stage["name"] for stage in job["stages"]] == ["import", "distribution", "score", "grade"]
    assert [stage["status"] for stage in job["stages"]][1:] == ["ready", "waiting", "waiting"]


def test_equal_work_is_reused_unless_it_is_not_to_be(api: Api) -> None:
    dataset = api.dataset()["id"]
    api.grade_job(dataset)
    run_stages("score", "grade")
    again = api.grade_job(dataset, a=50)
    assert [(s["name"], s["reused"]) for s in again["stages"]][:3] == [
        ("import", True), ("score", True), ("grade", False),
    ]  # fmt: skip
    spec = {**again["spec"], "name": "anew"}
    anew = api.post("/jobs", params={"reuse": "false"}, json=spec).json()
    assert not any(stage["reused"] for stage in anew["stages"])


def test_a_dry_run_estimates_and_creates_nothing(api: Api) -> None:
    dataset = api.dataset()["id"]
    training = {"epochs": 3, "batch_size": 2, "gradient_accumulation": 1}
    deft = {"a": 50, "c": 25, "grader": {"name": "scores"}}
    spec = align(dataset, deft=deft, training=training, evaluation={"samples": 5, "max_new_tokens": 10})
    answer = api.post("/jobs", params={"dry_run": "true"}, json=spec)
    assert answer.status_code == 200, answer.text
    estimate = answer.json()
    stages = {stage["stage"]: stage for stage in estimate["stages"]}
    # Level A: ceil(50 %) of two subsets of 4 samples is 4; 3 epochs of 2 steps.
    assert (stages["train"]["samples"], stages["train"]["steps"], estimate["steps"]) == (4, 6, 6)
    assert stages["import"]["reused"]
    assert stages["generate"]["samples"] == 5
    assert estimate["tokens"] > 0
    assert estimate["memory_bytes"] >= 16 * 1_000_000  # four float32 copies of tiny's million parameters
    assert estimate["seconds"] > 0
    assert estimate["complete"] is True
    assert estimate["spec"]["training"]["epochs"] == 3
    anew = api.post("/jobs", params={"dry_run": "true", "reuse": "false"}, json=spec).json()
    assert not any(stage["reused"] for stage in anew["stages"])
    assert api.get("/jobs").json()["data"] == []
    assert refusal(api, align("ds_no"))[0] == 422


def test_a_dry_run_knows_the_size_of_another_jobs_model(api: Api) -> None:
    dataset = api.dataset()["id"]
    grader = {"name": "reward_model", "model": f"job:{reward_model_job(api, dataset)['id']}"}
    answer = api.post("/jobs", params={"dry_run": "true"}, json=align(dataset, deft={"grader": grader}))
    scored = next(stage for stage in answer.json()["stages"] if stage["stage"] == "score")
    assert scored["memory_bytes"] > 4_000_000  # a million float32 parameters
    assert scored["samples"] == len(RANKED)


def test_a_dry_run_before_the_data_is_read_says_what_it_does_not_know(api: Api) -> None:
    uploaded = api.upload(b'{"prompt": "Q", "responses": ["a", "b"]}\n')
    answer = api.post("/jobs", params={"dry_run": "true"}, json=align(uploaded["id"]))
    assert answer.status_code == 200
    assert answer.json()["complete"] is False
    assert all(stage["tokens"] is None for stage in answer.json()["stages"])


def test_lists_by_status_and_kind(api: Api) -> None:
    dataset = api.dataset()["id"]
    graded = [api.grade_job(dataset, a=a)["id"] for a in (10, 20, 30)]
    reward = reward_model_job(api, dataset)["id"]
    api.post(f"/jobs/{graded[0]}/cancel")

    def ids(**params: str) -> list[str]:
        return [job["id"] for job in api.get("/jobs", params=params).json()["data"]]

    assert ids() == [reward, *graded[::-1]]
    assert ids(kind="grade") == graded[::-1]
    assert ids(status="cancelled") == [graded[0]]
    assert ids(kind="grade", limit="1", after=graded[2]) == [graded[1]]
    assert ids(kind="evaluate") == []
    assert api.get("/jobs", params={"status": "done"}).status_code == 422
    assert api.get("/jobs", params={"limit": 101}).json()["errors"][0]["pointer"] == "limit"


def test_moves_and_what_is_allowed_instead(api: Api) -> None:
    job = api.grade_job(api.dataset()["id"])
    path = f"/jobs/{job['id']}"
    assert api.post(f"{path}/pause").json()["status"] == "paused"
    refused = api.post(f"{path}/pause")
    assert (refused.status_code, refused.json()["code"]) == (409, "illegal_move")
    assert sorted(refused.json()["allowed"]) == ["cancel", "resume"]
    assert api.post(f"{path}/resume").json()["status"] in ("queued", "running")
    cancelled = api.post(f"{path}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    for move in ("cancel", "pause", "resume"):
        refused = api.post(f"{path}/{move}")
        assert (refused.status_code, refused.json()["allowed"]) == (409, [])
        assert "cancelled" in refused.json()["detail"]
    for path in ("/jobs/job_none/cancel", "/jobs/job%00none/cancel"):
        assert api.post(path).status_code == 404


def test_logs_are_lines_for_people(api: Api) -> None:
    job = api.grade_job(api.dataset()["id"])
    path = f"/jobs/{job['id']}/logs"
    before = api.get(path).json()["data"][-1]["seq"]  # what was reused
    with transaction() as session:
        for number in range(3):
            data = {"stage": "score", "level": "warning", "message": f"line {number}"}
            append_event(session, job["id"], "log", data)
        append_event(session, job["id"], "error", {"stage": "score", "code": "x", "message": "boom"})
    first = api.get(path, params={"limit": 3, "after": before}).json()
    assert [(e["stage"], e["level"], e["message"]) for e in first["data"]] == [
        ("score", "warning", f"line {number}") for number in range(3)
    ]
    rest = api.get(path, params={"after": first["data"][-1]["seq"]}).json()
    assert [(e["level"], e["message"]) for e in rest["data"]] == [("error", "boom")]
    assert (first["has_more"], rest["has_more"]) == (True, False)


def test_the_log_says_what_was_reused_and_from_which_job(api: Api) -> None:
    dataset = api.dataset()["id"]
    first = api.grade_job(dataset)
    run_stages("score", "grade")
    make_ready(first["id"], "distribution")
    shared = api.grade_job(dataset)
    finish(take(stage_run_of(first, "distribution")), {"qdiff.safetensors": b"q"})
    again = api.grade_job(dataset)
    assert again["status"] == "succeeded"

    def lines(job: dict[str, Any]) -> dict[str, str]:
        listed = api.get(f"/jobs/{job['id']}/logs").json()["data"]
        return {line["stage"]: line["message"] for line in listed if "run_" in line["message"]}

    def run(stage: str) -> str:
        return stage_run_of(first, stage)

    upload = f"reused: {run('import')} of the upload of its dataset"
    made = {stage: f"{run(stage)} of job {first['id']}" for stage in ("score", "grade", "distribution")}
    assert lines(first) == {"import": upload}
    assert lines(again) == {"import": upload, **{stage: f"reused: {what}" for stage, what in made.items()}}
    assert lines(shared)["grade"] == f"reused: {made['grade']}"
    assert lines(shared)["distribution"] == f"shared, it is under way: {made['distribution']}"


def test_a_finished_job_shows_its_result(api: Api) -> None:
    job = api.grade_job(api.dataset(RANKED)["id"])
    run_stages("score", "grade")
    make_ready(job["id"], "distribution")
    finish(take(stage_run_of(job, "distribution")), {"qdiff.safetensors": b"q"}, {"positive": 3})
    done = api.get(f"/jobs/{job['id']}").json()
    assert done["status"] == "succeeded"
    assert done["result"]["distribution"]["positive"] == 3
    assert done["result"]["grade"]["levels"] == {"A": 2, "B": 4, "C": 2}
    assert done["finished_at"] is not None
