"""Data sets of the hub over HTTP, read from a server that plays the hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from app.settings import get_settings
from tests.api_world import RANKED, Api, jsonl, run_stages
from tests.hub_server import COMMIT, Hub, playing_hub

ASKED = {"hub": "org/set", "split": "train", "name": "from the hub"}


@pytest.fixture
def hub(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub whose host is allowed to the API and, as a worker would pass it on, to the stage."""
    with playing_hub() as playing:
        playing.repositories["org/set"] = {"train.jsonl": jsonl(RANKED), "test.jsonl": jsonl(RANKED[:2])}
        monkeypatch.setenv("HF_ENDPOINT", playing.url)
        monkeypatch.setenv("DEFT_ENDPOINT_HOSTS", playing.url.removeprefix("http://"))
        get_settings.cache_clear()
        yield playing
    get_settings.cache_clear()


def faults(answer: Any) -> list[tuple[str, str]]:
    assert answer.status_code == 422, answer.text
    return [(entry["pointer"], entry["code"]) for entry in answer.json()["errors"]]


def test_a_data_set_of_the_hub_is_a_dataset_like_any_other(api: Api, hub: Hub) -> None:
    sent = api.post("/datasets", json=ASKED)
    assert sent.status_code == 201, sent.text
    assert (sent.json()["status"], sent.json()["name"]) == ("processing", "from the hub")
    assert hub.requests == [], "nothing is asked while the request is answered"
    job = api.grade_job(sent.json()["id"])
    run_stages("import")
    found = api.get(f"/datasets/{sent.json()['id']}").json()
    assert (found["status"], found["samples"], found["format"]) == ("ready", 8, "ranked")
    assert found["hub"] == {
        "hub": "org/set", "split": "train", "data_dir": None, "revision": "main", "limit": None,
        "commit": COMMIT, "files": ["train.jsonl"],
    }  # fmt: skip
    assert api.get(found["links"]["samples"]).json()["data"][0]["id"] == "s0"
    run_stages("score", "grade")
    assert api.get(f"/jobs/{job['id']}").json()["stages"][2]["status"] == "succeeded"
    again = api.post("/datasets", json=ASKED)
    assert again.json()["status"] == "ready", "the same name and revision is read once"
    fewer = api.post("/datasets", json=ASKED | {"limit": 3})
    run_stages("import")
    assert api.get(f"/datasets/{fewer.json()['id']}").json()["samples"] == 3
    answer = api.http.delete(f"/datasets/{fewer.json()['id']}", headers=api.researcher)
    assert answer.status_code == 204


def test_what_the_hub_has_not_makes_the_dataset_invalid(api: Api, hub: Hub) -> None:
    sent = api.post("/datasets", json=ASKED | {"hub": "no/such"}).json()
    run_stages("import")
    found = api.get(f"/datasets/{sent['id']}").json()
    assert (found["status"], found["error"]["code"]) == ("invalid", "unknown_hub_dataset")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"hub": "org/set"}, "/split"),
        ({**ASKED, "hub": "set"}, "/hub"),
        ({**ASKED, "data_dir": "../x"}, "/data_dir"),
        ({**ASKED, "limit": 0}, "/limit"),
        ({**ASKED, "file": "x"}, "/file"),
    ],
)
def test_a_request_that_names_no_data_set_is_refused_with_its_place(
    api: Api, hub: Hub, body: Any, pointer: str
) -> None:
    assert [place for place, _ in faults(api.post("/datasets", json=body))] == [pointer]


@pytest.mark.parametrize("body", [b"{", b'{"hub": "org/set", }', b"3", b'"text"', b"\xff", b"[" * 60_000])
def test_a_line_that_is_neither_a_request_nor_rows_is_refused(api: Api, hub: Hub, body: bytes) -> None:
    answer = api.post("/datasets", content=body, headers={"Content-Type": "application/json"})
    assert faults(answer) == [("", "invalid_json")]


ROW = {"prompt": "one", "chosen": "two", "rejected": "three"}


@pytest.mark.parametrize(
    "body",
    [
        json.dumps([ROW, ROW]).encode(),
        b"\n".join([json.dumps(ROW).encode()] * 2),
        json.dumps([ROW] * 3_000, indent=1).encode(),
        json.dumps({**ROW, "chosen": "long " * 20_000}).encode(),
    ],
    ids=["array", "lines", "a long array", "a long line"],
)
def test_rows_sent_as_json_are_a_file(api: Api, hub: Hub, body: bytes) -> None:
    """As a user of curl sends a JSON array; byte for byte."""
    sent = api.post("/datasets", content=body, headers={"Content-Type": "application/json"})
    assert (sent.status_code, sent.json()["hub"]) == (201, None)
    assert sent.json()["sha256"] == hashlib.sha256(body).hexdigest()
    run_stages("import")
    found = api.get(f"/datasets/{sent.json()['id']}").json()
    assert (found["status"], found["rejected"]) == ("ready", 0)


def test_a_hub_whose_host_is_not_allowed_is_not_asked(
    api: Api, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEFT_ENDPOINT_HOSTS", "api.example.com")
    get_settings.cache_clear()
    assert faults(api.post("/datasets", json=ASKED)) == [("/hub", "endpoint_not_allowed")]
    assert hub.requests == []


def test_a_repeated_request_imports_once(api: Api, hub: Hub) -> None:
    headers = {"Idempotency-Key": "once"}
    ids = [api.post("/datasets", json=ASKED, headers=headers).json()["id"] for _ in range(2)]
    assert ids[0] == ids[1]
    other = api.post("/datasets", json=ASKED | {"limit": 1}, headers=headers)
    assert other.json()["code"] == "idempotency_key_reused"


def test_a_judge_s_questions_are_no_data_set_of_the_hub(api: Api, hub: Hub) -> None:
    dataset = api.post("/datasets", json=ASKED).json()["id"]
    judge = {"url": hub.url, "model": "m"}
    spec = {"kind": "judge", "questions": dataset, "model": {"endpoint": judge}, "judge": judge}
    assert faults(api.post("/jobs", json=spec)) == [("/questions", "unfit_dataset")]
