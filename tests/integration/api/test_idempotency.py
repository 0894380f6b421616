"""The same POST twice creates once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from app.db.models import Dataset, IdempotencyKey, Job, Role
from app.db.session import transaction
from tests.api_world import RANKED, Api, headers_for, jsonl

KEY = {"Idempotency-Key": "once"}


def count(table: type) -> int:
    with transaction() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def spec(api: Api) -> dict[str, Any]:
    return {"kind": "grade", "name": "g", "dataset": api.dataset()["id"], "model": {"base": "tiny"}}


def test_a_repeated_job_is_answered_as_before(api: Api) -> None:
    asked = spec(api)
    first = api.post("/jobs", json=asked, headers=KEY)
    api.post(f"/jobs/{first.json()['id']}/cancel")
    again = api.post("/jobs", json=asked, headers=KEY)
    assert first.status_code == again.status_code == 201
    assert again.content == first.content  # the first answer, although the job's status is another by now
    assert again.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert count(Job) == 1


def test_another_request_may_not_have_the_key(api: Api) -> None:
    asked = spec(api)
    assert api.post("/jobs", json=asked, headers=KEY).status_code == 201
    for path, body in (("/jobs", {**asked, "name": "other"}), ("/jobs?reuse=false", asked)):
        answer = api.post(path, json=body, headers=KEY)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    upload = api.post("/datasets", content=jsonl(RANKED), headers=KEY)
    assert (upload.status_code, upload.json()["code"]) == (422, "idempotency_key_reused")
    assert count(Job) == 1


def test_keys_of_two_callers_do_not_meet(api: Api) -> None:
    asked = spec(api)
    mine = api.post("/jobs", json=asked, headers=KEY).json()
    theirs = api.post("/jobs", json=asked, headers={**KEY, **headers_for(Role.RESEARCHER)}).json()
    assert mine["id"] != theirs["id"]


def test_what_was_refused_may_be_sent_again(api: Api) -> None:
    asked = {**spec(api), "dataset": "ds_none"}
    for _ in range(2):
        assert api.post("/jobs", json=asked, headers=KEY).json()["code"] == "unknown_dataset"
    assert count(IdempotencyKey) == 0


def test_an_upload_is_told_by_its_content_and_fields(api: Api) -> None:
    content = jsonl(RANKED)

    def send(name: str, data: bytes) -> Any:
        return api.post("/datasets", files={"file": ("a", data)}, data={"name": name}, headers=KEY)

    first, again = send("n", content), send("n", content)  # the forms' boundaries differ
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert send("other", content).status_code == 422
    assert send("n", content + b"\n").status_code == 422
    assert count(Dataset) == 1


def test_a_new_key_is_shown_again_to_its_maker_and_stored_nowhere(api: Api) -> None:
    asked = {"name": "ci", "role": "viewer"}
    first = api.http.post("/keys", json=asked, headers={**api.admin, **KEY})
    again = api.http.post("/keys", json=asked, headers={**api.admin, **KEY})
    assert again.json() == first.json()
    with transaction() as session:
        stored = session.scalars(sa.select(IdempotencyKey.body)).one()
    assert first.json()["key"].encode() not in stored
    assert b"viewer" not in stored


def test_of_many_at_once_one_creates(api: Api) -> None:
    asked = spec(api)
    start = threading.Barrier(8)

    def send(_: int) -> Any:
        start.wait()
        return api.post("/jobs", json=asked, headers=KEY)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    assert count(Job) == 1
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"request_in_flight"}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1


def test_in_flight_is_409(api: Api) -> None:
    asked = spec(api)
    with transaction() as session:
        from app.idempotency import _lock_number

        key_id = session.scalar(sa.text("SELECT id FROM api_keys WHERE role = 'researcher'"))
        session.execute(sa.select(sa.func.pg_advisory_xact_lock(_lock_number(key_id, "once"))))
        answer = api.post("/jobs", json=asked, headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (409, "request_in_flight")
    assert answer.headers["retry-after"] == "1"
    assert api.post("/jobs", json=asked, headers=KEY).status_code == 201


def test_an_old_key_is_forgotten(api: Api) -> None:
    asked = spec(api)
    first = api.post("/jobs", json=asked, headers=KEY).json()
    with transaction() as session:
        session.execute(sa.text("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'"))
    assert api.post("/jobs", json=asked, headers=KEY).json()["id"] != first["id"]


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
def test_a_key_of_another_form_is_refused(api: Api, key: str) -> None:
    answer = api.post("/jobs", json={}, headers={"Idempotency-Key": key})
    assert answer.status_code == 422
    assert "Idempotency-Key" in [error["pointer"] for error in answer.json()["errors"]]
