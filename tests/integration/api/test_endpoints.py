"""Jobs that ask endpoints, through the service: the dataset that augment makes, refusals, and secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.db.session import transaction
from app.settings import get_settings
from deft_engine.endpoints.cache import CACHE_VARIABLE
from tests.api_world import RANKED, Api, refusal, run_stages, stage_run_of
from tests.chat_server import Body, ChatServer, serving

KEY = "sk-very-secret-0123456789"


def reply(body: Body) -> str:
    return f"A third answer to {json.loads(body['messages'][1]['content'])['conversation'][-1]['content']}"


@pytest.fixture
def server(service_settings: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ChatServer]:
    """A server that the operator allows; its key is set as for a worker."""
    monkeypatch.setenv("DEFT_ENDPOINT_HOSTS", "127.0.0.1")
    monkeypatch.setenv("DEFT_ENDPOINT_KEY_PLAYED", KEY)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "answers"))
    get_settings.cache_clear()
    with serving(reply=reply) as played:
        yield played


def augment(server: ChatServer, dataset: str, **more: Any) -> dict[str, Any]:
    endpoint = server.spec(api_key_env="DEFT_ENDPOINT_KEY_PLAYED")
    return {"kind": "augment", "name": "third", "dataset": dataset, "endpoint": endpoint, **more}


def finished(api: Api, spec: dict[str, Any]) -> dict[str, Any]:
    """A job of kind augment whose stages have run, and whose dataset was read."""
    job = api.job(**spec)
    run_stages("augment", "import")
    return api.get(f"/jobs/{job['id']}").json()


def test_what_augment_makes_is_a_dataset_that_the_next_job_takes(api: Api, server: ChatServer) -> None:
    job = finished(api, augment(server, api.dataset()["id"]))
    assert job["status"] == "succeeded"
    dataset = api.get(f"/datasets/{job['result']['dataset']}").json()
    assert (dataset["name"], dataset["status"], dataset["format"]) == ("third", "ready", "ranked")
    assert dataset["responses_per_sample"] == {"3": len(RANKED)}
    first = api.get(f"/datasets/{dataset['id']}/samples?limit=1").json()["data"][0]
    texts = [response["text"] for response in first["responses"]]
    assert texts == ["A third answer to Question 0?", "Good answer 0", "Bad 0"]
    assert (first["id"], first["subset"]) == ("s0", "harmless")
    graded = api.grade_job(dataset["id"], grader={"name": "random"}, a=25)
    assert next(stage for stage in graded["stages"] if stage["name"] == "import")["reused"]
    report = api.get(f"/jobs/{job['id']}/artifacts/report.html").text
    assert "wrote a further response" in report


def test_an_equal_job_shares_the_dataset_until_it_is_deleted(api: Api, server: ChatServer) -> None:
    source = api.dataset()["id"]
    first = finished(api, augment(server, source))
    again = api.job(**augment(server, source))
    assert stage_run_of(again, "augment") == stage_run_of(first, "augment")
    assert again["result"]["dataset"] == first["result"]["dataset"]
    deleted = api.http.delete(f"/datasets/{first['result']['dataset']}", headers=api.researcher)
    assert deleted.status_code == 204
    kept = api.get(f"/jobs/{first['id']}/artifacts/augmented.jsonl")  # the job's own file stays
    assert len(kept.text.splitlines()) == len(RANKED)
    anew = finished(api, augment(server, source))
    assert api.get(f"/datasets/{anew['result']['dataset']}").json()["status"] == "ready"
    assert len(server.bodies) == len(RANKED)  # nothing was asked twice


def test_hosts_and_names_of_keys_are_refused_at_their_place(api: Api, server: ChatServer) -> None:
    dataset = api.dataset()["id"]
    for url in (
        "http://169.254.169.254/v1",
        "http://localhost:1/v1",
        "http://[::1]/v1",
        "http://2130706433/v1",
    ):
        spec = augment(server, dataset)
        spec["endpoint"]["url"] = url
        status, code, places, _ = refusal(api, spec)
        assert (status, places) == (422, [("/endpoint/url", "endpoint_not_allowed")]), code
    spec = augment(server, dataset)
    spec["endpoint"]["api_key_env"] = "DEFT_DATABASE_URL"
    assert refusal(api, spec)[2] == [("/endpoint/api_key_env", "string_pattern_mismatch")]
    spec = augment(server, dataset)
    spec["endpoint"]["api_key"] = KEY
    status, _, places, text = refusal(api, spec)
    assert places == [("/endpoint/api_key", "extra_forbidden")]
    assert KEY not in text
    assert server.bodies == []


def test_an_endpoint_that_answers_html_fails_the_job_with_the_reason(
    api: Api, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deft_engine.endpoints.client._FIRST_PAUSE", 0.01)
    monkeypatch.setattr("deft_engine.endpoints.client._LONGEST_PAUSE", 0.01)
    server.fault = lambda number: "html"
    job = finished(api, augment(server, api.dataset()["id"]))
    assert (job["status"], job["error"]["code"]) == ("failed", "endpoint_html")
    assert server.url in job["error"]["message"]
    assert "endpoint.url" in job["error"]["hint"]


def test_the_key_is_in_no_row_and_no_artifact(api: Api, server: ChatServer) -> None:
    server.reply = lambda body: f"{reply(body)}, and your key is {KEY}"
    job = finished(api, augment(server, api.dataset()["id"]))
    assert server.seen_headers[0]["Authorization"] == f"Bearer {KEY}"
    with transaction() as session:
        tables = sa.inspect(session.connection()).get_table_names()
        assert "stage_inputs" in tables
        for table in tables:
            for row in session.execute(sa.text(f'SELECT * FROM "{table}"')):
                assert KEY not in repr(row), table
    for path in get_settings().home.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    assert job["result"]["dataset"].startswith("ds_")


def test_an_evaluate_job_may_ask_an_endpoint(api: Api, server: ChatServer) -> None:
    server.reply = lambda body: f"I answer {body['messages'][-1]['content']}"
    dataset = api.dataset()["id"]
    job = api.job(kind="evaluate", eval_dataset=dataset, model={"endpoint": server.spec()})
    run_stages("generate", "evaluate")
    job = api.get(f"/jobs/{job['id']}").json()
    assert job["status"] == "succeeded"
    assert job["result"]["evaluate"]["total"]["bleu"]["n"] == len(RANKED)
    assert job["result"]["generate"]["endpoint"]["requests"] == len(RANKED)
    generations = api.get(f"/jobs/{job['id']}/artifacts/generations.jsonl").text.splitlines()
    assert json.loads(generations[0])["response"] == "I answer Question 0?"


QUESTIONS = [
    {"question_id": 1, "category": "writing", "turns": ["Write.", "Rewrite."]},
    {"question_id": 2, "category": "math", "turns": ["1 + 1?"], "reference": ["2"]},
]


def test_a_judge_grades_what_an_endpoint_answers(api: Api, server: ChatServer) -> None:
    def play(body: Body) -> str:
        if body["messages"][0]["role"] == "user":
            return "The model's answer."
        return "It is fine.\nRating: [[7]]"

    server.reply = play
    questions = api.dataset(QUESTIONS)
    assert (questions["format"], questions["status"], questions["samples"]) == ("fastchat", "ready", 0)
    spec = {"kind": "judge", "name": "bench", "questions": questions["id"], "judge": server.spec(),
            "model": {"endpoint": server.spec()}}  # fmt: skip
    estimate = api.post("/jobs?dry_run=true", json=spec).json()
    assert [stage["stage"] for stage in estimate["stages"]] == ["answer", "judge"]
    job = api.job(**spec)
    in_use = api.http.delete(f"/datasets/{questions['id']}", headers=api.researcher)
    assert in_use.json()["code"] == "dataset_in_use"
    run_stages("answer", "judge")
    job = api.get(f"/jobs/{job['id']}").json()
    assert job["status"] == "succeeded", job["error"]
    assert job["result"]["judge"]["total"] == {"value": 7.0, "n": 3, "unparsed": 0}
    names = [entry["name"] for entry in api.get(f"/jobs/{job['id']}/artifacts").json()["data"]]
    assert {"answers.jsonl", "judgments.jsonl", "mt_bench.json", "report.html"} <= set(names)
    assert "7.00 over all of 3 ratings" in api.get(f"/jobs/{job['id']}/artifacts/report.html").text
    answers = api.upload(
        api.get(f"/jobs/{job['id']}/artifacts/answers.jsonl").content
    )  # what it wrote, it reads
    run_stages("import")
    again = {key: value for key, value in spec.items() if key != "model"} | {"answers": answers["id"]}
    second = api.job(**again)
    run_stages("judge")
    assert api.get(f"/jobs/{second['id']}").json()["result"]["judge"]["endpoint"]["kept"] == 3


def test_a_judge_grades_what_a_model_of_this_machine_answers(api: Api, server: ChatServer) -> None:
    server.reply = lambda body: "It is short.\nRating: [[3]]"
    spec = {"kind": "judge", "questions": api.dataset(QUESTIONS)["id"], "judge": server.spec(),
            "model": {"base": "tiny"}, "max_new_tokens": 8}  # fmt: skip
    assert refusal(api, {**spec, "model": {"base": "job:job_none"}})[2] == [("/model/base", "unusable_model")]
    job = api.job(**spec)
    run_stages("answer_locally", "judge")
    job = api.get(f"/jobs/{job['id']}").json()
    assert job["status"] == "succeeded", job["error"]
    assert job["result"]["judge"]["total"] == {"value": 3.0, "n": 3, "unparsed": 0}
    assert job["result"]["judge"]["model"] == "tiny"
    assert "tiny" in api.get(f"/jobs/{job['id']}/artifacts/report.html").text


def test_files_of_a_judge_are_refused_at_their_place(api: Api, server: ChatServer) -> None:
    questions, samples = api.dataset(QUESTIONS)["id"], api.dataset()["id"]
    spec = {"kind": "judge", "questions": questions, "answers": samples, "judge": server.spec()}
    assert refusal(api, spec)[2] == [("/answers", "unfit_dataset")]
    assert refusal(api, {**spec, "answers": "ds_none"})[2] == [("/answers", "unknown_dataset")]
    assert refusal(api, {**spec, "answers": None})[1] == "invalid_request"
    grade = {"kind": "grade", "dataset": questions, "model": {"base": "tiny"}}
    assert refusal(api, grade)[2] == [("/dataset", "unfit_dataset")]
    without = api.upload(b'{"question_id": 3, "turns": []}\n')
    run_stages("import")
    status, _, places, text = refusal(api, {**spec, "questions": without["id"]})
    assert (status, places) == (422, [("/questions", "invalid_dataset")])
    assert 'line 1: "turns" has 0 entries' in text
