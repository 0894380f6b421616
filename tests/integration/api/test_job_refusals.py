"""Jobs that are refused, with the place of what is wrong and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.settings import get_settings
from tests.api_world import Api, align, refusal, reward_model_job

UNSCORED = [{"prompt": f"Q{i}?", "responses": ["good", "bad"]} for i in range(4)]


WRONG_FIELDS = [
    ({"deft": {"a": 60, "c": 50}}, "/deft", "value_error", "more than 100"),
    ({"method": {"name": "ppo"}}, "/method/name", "union_tag_invalid", "'sft', 'dpo'"),
    ({"method": {"beta": 1}}, "/method/name", "union_tag_not_found", "name"),
    ({"preset": "deft-ppo"}, "/preset", "value_error", "deft-dpo"),
    ({"kind": "alignn"}, "/kind", "union_tag_invalid", "'align'"),
    ({"speed": 11}, "/speed", "extra_forbidden", "spelling"),
    ({"name": "a\x00b"}, "/name", "value_error", "NUL"),
    ({"training": {"epochs": "many"}}, "/training/epochs", "int_parsing", "must be a whole number"),
    ({"training": {"epochs": 10**30}}, "/training/epochs", "less_than_equal", "1000"),
    ({"training": {"seed": -1}}, "/training/seed", "greater_than_equal", "0"),
    ({"training": 7}, "/training", "model_attributes_type", "object"),
    ({"dataset": None}, "/dataset", "string_type", "must be a string, not null"),
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
    unread = api.post("/jobs", json={"kind": "alignn"}).json()["errors"][0]
    assert (set(unread), unread["line"]) == ({"pointer", "line", "code", "detail"}, None)
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


def test_a_method_that_needs_rewards_is_refused_at_once_where_the_data_has_none(api: Api) -> None:
    dataset = api.dataset(UNSCORED)["id"]
    for spec in (
        align(dataset, deft=None, method={"name": "pro", "variant": "reference"}),
        {"kind": "reward_model", "dataset": dataset, "model": {"base": "tiny"}, "method": {"margin": 1}},
    ):
        status, code, places, detail = refusal(api, spec)
        assert (status, code, places) == (422, "no_scores", [("/method", "no_scores")])
        assert "form of the method" in detail
    assert api.job(**align(dataset, deft=None, method={"name": "pro"}))["status"] == "queued"
