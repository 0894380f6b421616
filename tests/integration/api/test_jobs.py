"""Jobs: sent, refused with the place, estimated, listed and moved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.db.claims import fail
from app.db.events import append_event
from app.db.session import transaction
from app.settings import get_settings
from tests.api_world import ENDED, RANKED, Api, finish, make_ready, run_stages, stage_run_of, take

UNSCORED = [{"prompt": f"Q{i}?", "responses": ["good", "bad"]} for i in range(4)]


def refusal(api: Api, spec: dict[str, Any]) -> tuple[int, str, list[tuple[str, str]], str]:
    answer = api.post("/jobs", json=spec)
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    places = [(error["pointer"], error["code"]) for error in problem["errors"]]
    return answer.status_code, problem["code"], places, problem["detail"]


def align(dataset: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "align", "dataset": dataset, "model": {"base": "tiny"}, **fields}


def reward_model_job(api: Api, dataset: str) -> dict[str, Any]:
    return api.job(kind="reward_model", name="r", dataset=dataset, model={"base": "tiny"})


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
    mine = [entry for entry in attempts if entry["stage"] == "score"]
    assert [(entry["number"], entry["status"], entry["log"]) for entry in mine] == [(1, "failed", ENDED.log)]


WRONG_FIELDS = [
    ({"deft": {"a": 60, "c": 50}}, "/deft", "value_error", "more than 100"),
    ({"method": {"name": "ppo"}}, "/method/name", "union_tag_invalid", "'sft', 'dpo'"),
    ({"method": {"beta": 1}}, "/method/name", "union_tag_not_found", "name"),
    ({"preset": "deft-ppo"}, "/preset", "value_error", "deft-dpo"),
    ({"kind": "alignn"}, "/kind", "union_tag_invalid", "'align'"),
    ({"speed": 11}, "/speed", "extra_forbidden", "spelling"),
    ({"name": "a\x00b"}, "/name", "value_error", "NUL"),
    ({"training": {"epochs": "many"}}, "/training/epochs", "int_parsing", "integer"),
    ({"training": {"epochs": 10**30}}, "/training/epochs", "less_than_equal", "1000"),
    ({"training": {"seed": -1}}, "/training/seed", "greater_than_equal", "0"),
    ({"training": 7}, "/training", "model_attributes_type", "object"),
    ({"dataset": None}, "/dataset", "string_type", "string"),
    ({"model": {}}, "/model/base", "missing", "value"),
    ({"deft": {"grader": {"name": "reward_model"}}}, "/deft/grader/model", "missing", "value"),
    ({"deft": {"omega": {"grad_share": 0}}}, "/deft/omega/grad_share", "greater_than", "0"),
]  # fmt: skip


def test_a_wrong_field_is_named(api: Api) -> None:
    for fields, pointer, code, said in WRONG_FIELDS:
        status, _, places, detail = refusal(api, {**align("ds_any"), **fields})
        assert status == 422, fields
        assert (pointer, code) in places, fields
        assert said in detail, fields


def test_json_that_is_none_is_told_its_line(api: Api) -> None:
    answer = api.post("/jobs", content=b'{"kind":\n "align",}', headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")
    assert answer.json()["errors"][0]["line"] == 2
    for body in (b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}", b"\xff\xfe", b"[]", b"3", b'"x"', b"null"):
        answer = api.post("/jobs", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), body[:10]
        assert answer.headers["content-type"] == "application/problem+json"
    form = api.post("/jobs", content=b"kind=align", headers={"Content-Type": "text/plain"})
    assert form.status_code == 422
    assert "application/json" in form.json()["detail"]
    surrogate = api.post(
        "/jobs", content=rb'{"kind":"align","dataset":"\ud800"}', headers={"Content-Type": "application/json"}
    )
    assert surrogate.status_code == 422


def test_names_that_cannot_be_resolved_are_told_where(api: Api) -> None:
    dataset = api.dataset()["id"]
    assert refusal(api, align("ds_unknown"))[:3] == (
        422,
        "unknown_dataset",
        [("/dataset", "unknown_dataset")],
    )
    known = align(dataset, eval_dataset="ds_unknown", evaluation={})
    assert refusal(api, known)[2] == [("/eval_dataset", "unknown_dataset")]
    assert refusal(api, align(dataset, model={"base": "no such model"}))[2][0][0] == "/model/base"
    assert refusal(api, align(dataset, model={"base": "job:job_x"}))[2] == [("/model/base", "unusable_model")]
    evaluation = {"reward_model": "job:job_x"}
    assert refusal(api, align(dataset, evaluation=evaluation))[2][0][0] == "/evaluation/reward_model"


def test_a_model_outside_the_roots_is_refused(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = api.dataset()["id"]
    inside, outside = tmp_path / "models" / "m", tmp_path / "secret"
    for folder in (inside, outside):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    monkeypatch.setenv("DEFT_MODEL_ROOTS", str(tmp_path / "models"))
    get_settings.cache_clear()
    for base in (str(outside), f"{inside}/../../secret", "/etc", "../secret"):
        status, code, places, detail = refusal(api, align(dataset, model={"base": base}))
        assert (status, code, places[0][0]) == (422, "model_outside_roots", "/model/base")
        assert "DEFT_MODEL_ROOTS" in detail
    assert api.job(**align(dataset, model={"base": str(inside)}))["status"] == "queued"


def test_a_policy_is_no_reward_model_nor_the_other_way_round(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = api.dataset()["id"]
    monkeypatch.setenv("DEFT_MODEL_ROOTS", str(tmp_path))
    get_settings.cache_clear()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "deft.json").write_text(json.dumps({"kind": "reward_model"}))
    reward = f"job:{reward_model_job(api, dataset)['id']}"
    policy = f"job:{api.job(**align(dataset))['id']}"
    grader = {"name": "reward_model", "model": policy}
    cases = [
        (align(dataset, model={"base": reward}), "/model/base"),
        (align(dataset, model={"base": str(tmp_path)}), "/model/base"),
        (align(dataset, deft={"grader": grader}), "/deft/grader/model"),
        (align(dataset, deft={"grader": {"name": "margin", "model": policy}}), "/deft/grader/model"),
        (align(dataset, deft={"grader": {"name": "implicit", "policy": reward}}), "/deft/grader/policy"),
        (
            align(dataset, deft={"grader": {"name": "implicit", "policy": policy, "reference": reward}}),
            "/deft/grader/reference",
        ),
        (align(dataset, evaluation={"reward_model": "tiny"}), "/evaluation/reward_model"),
        ({"kind": "reward_model", "dataset": dataset, "model": {"base": reward}}, "/model/base"),
    ]
    for spec, pointer in cases:
        assert refusal(api, spec)[2] == [(pointer, "unusable_model")], spec
    right = align(dataset, model={"base": policy}, deft={"grader": {"name": "reward_model", "model": reward}})
    right["evaluation"] = {"reward_model": str(tmp_path)}
    assert api.job(**right)["status"] == "queued"


def test_a_job_without_a_model_to_give_is_refused(api: Api) -> None:
    dataset = api.dataset()["id"]
    graded = api.grade_job(dataset)
    assert "makes no model" in refusal(api, align(dataset, model={"base": f"job:{graded['id']}"}))[3]
    reward = reward_model_job(api, dataset)
    api.post(f"/jobs/{reward['id']}/cancel")
    grader = {"name": "reward_model", "model": f"job:{reward['id']}"}
    assert "cancelled" in refusal(api, align(dataset, deft={"grader": grader}))[3]


def test_a_live_jobs_model_is_waited_for(api: Api) -> None:
    dataset = api.dataset()["id"]
    reward = reward_model_job(api, dataset)
    job = api.job(**align(dataset, deft={"grader": {"name": "reward_model", "model": f"job:{reward['id']}"}}))
    assert next(s["status"] for s in job["stages"] if s["name"] == "score") == "waiting"
    finish(take(stage_run_of(reward, "train_reward")), {"model/config.json": b"{}"}, {"steps": 1})
    again = api.get(f"/jobs/{job['id']}").json()
    assert next(s["status"] for s in again["stages"] if s["name"] == "score") == "ready"


def test_grading_by_scores_that_are_not_there_is_refused_at_once(api: Api) -> None:
    dataset = api.dataset(UNSCORED)
    assert dataset["scored"] == 0
    status, code, places, detail = refusal(api, align(dataset["id"], deft={}))
    assert (status, code, places) == (422, "no_scores", [("/deft/grader", "no_scores")])
    assert "reward_model" in detail
    margin = align(dataset["id"], deft={"grader": {"name": "margin"}})
    assert refusal(api, margin)[2] == [("/deft/grader", "no_scores")]
    for grader in ({"name": "distribution"}, {"name": "length"}):
        assert api.job(**align(dataset["id"], deft={"grader": grader}))["status"] == "queued"


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
    with transaction() as session:
        for number in range(3):
            data = {"stage": "score", "level": "warning", "message": f"line {number}"}
            append_event(session, job["id"], "log", data)
        append_event(session, job["id"], "error", {"stage": "score", "code": "x", "message": "boom"})
    path = f"/jobs/{job['id']}/logs"
    first = api.get(path, params={"limit": 3}).json()
    assert [(e["stage"], e["level"], e["message"]) for e in first["data"]] == [
        ("score", "warning", f"line {number}") for number in range(3)
    ]
    rest = api.get(path, params={"after": first["data"][-1]["seq"]}).json()
    assert [(e["level"], e["message"]) for e in rest["data"]] == [("error", "boom")]
    assert (first["has_more"], rest["has_more"]) == (True, False)


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
