"""A job's events as a list and as a stream that resumes without gap or repeat."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from app.api import events
from app.auth import end_web_session, start_web_session
from app.cookies import SESSION_COOKIE
from app.db.events import append_event
from app.db.models import ApiKey
from app.db.session import transaction
from tests.api_world import Api


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.05)


def append(job_id: str, *messages: str) -> None:
    for message in messages:
        with transaction() as session:
            append_event(session, job_id, "log", {"stage": "score", "level": "info", "message": message})


def stream(api: Api, job_id: str, last: str | None = None) -> tuple[int, list[dict[str, Any]], str]:
    """The whole stream: its status, its events and its text."""
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
    answer = api.get(f"/jobs/{job_id}/events", headers=headers)
    found = []
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            data = json.loads(fields["data"])
            assert fields["id"] == str(data["seq"])
            assert fields["event"] == data["type"]
            found.append(data)
    return answer.status_code, found, answer.text


def test_the_list_is_numbered_without_gaps_and_paged(api: Api) -> None:
    job = api.grade_job(api.dataset()["id"])
    append(job["id"], *"abc")
    path = f"/jobs/{job['id']}/events"
    everything = api.get(path, params={"limit": 100}).json()
    numbers = [event["seq"] for event in everything["data"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert everything["data"][0]["type"] == "job.status"
    assert [event["data"]["message"] for event in everything["data"][-3:]] == ["a", "b", "c"]
    page = api.get(path, params={"after": 2, "limit": 2}).json()
    assert [event["seq"] for event in page["data"]] == [3, 4]
    assert page["has_more"]
    assert api.get(path, params={"after": 2**63}).status_code == 422
    assert api.get("/jobs/job_none/events").status_code == 404


def test_a_stream_ends_with_the_job_and_equals_the_list(api: Api) -> None:
    job = api.grade_job(api.dataset()["id"])
    seen_a_heartbeat = threading.Event()

    def live() -> None:
        append(job["id"], "early")
        seen_a_heartbeat.wait(0.3)
        append(job["id"], "late")
        api.post(f"/jobs/{job['id']}/cancel")

    worker = threading.Thread(target=live)
    worker.start()
    status, streamed, text = stream(api, job["id"])
    worker.join()
    assert status == 200
    assert ": ping" in text
    listed = api.get(f"/jobs/{job['id']}/events", params={"limit": 100}).json()["data"]
    assert streamed == listed
    assert streamed[-1]["data"] == {"status": "cancelled"}


def test_a_stream_resumes_after_any_event_and_then_says_there_is_no_more(api: Api) -> None:
    job = api.grade_job(api.dataset()["id"])
    append(job["id"], *"abcdef")
    api.post(f"/jobs/{job['id']}/cancel")
    _, everything, _ = stream(api, job["id"])
    for cut in range(1, len(everything)):
        _, rest, _ = stream(api, job["id"], last=str(cut))
        assert [event["seq"] for event in rest] == list(range(cut + 1, len(everything) + 1))
    for beyond in (str(len(everything)), "9" * 40):
        assert stream(api, job["id"], last=beyond)[0] == 204  # an EventSource does not connect again
    assert stream(api, job["id"], last="nonsense")[1] == everything


@pytest.mark.parametrize("access", ["key", "session"])
def test_a_stream_ends_with_the_access_of_who_reads_it(api: Api, access: str) -> None:
    job = api.grade_job(api.dataset()["id"])
    made = api.http.post("/keys", headers=api.admin, json={"name": "gone", "role": "viewer"}).json()
    reader = {"Authorization": f"Bearer {made['key']}"}
    if access == "session":
        with transaction() as session:
            key = session.get_one(ApiKey, made["id"])
            reader = {"Cookie": f"{SESSION_COOKIE}={start_web_session(session, key)}"}
    left = threading.Event()

    def end_access_then_after_a_while_the_job() -> None:
        if access == "key":
            api.http.delete(f"/keys/{made['id']}", headers=api.admin)
        else:
            with transaction() as session:
                end_web_session(session, reader["Cookie"].partition("=")[2])
        if not left.wait(5.0):
            api.post(f"/jobs/{job['id']}/cancel")

    other = threading.Thread(target=end_access_then_after_a_while_the_job)
    path, asked = f"/jobs/{job['id']}/events", {**reader, "Accept": "text/event-stream"}
    assert api.http.get(path, headers=reader).status_code == 200
    with api.http.stream("GET", path, headers=asked) as answer:
        other.start()
        text = "".join(answer.iter_text())
    left.set()
    other.join()
    assert answer.status_code == 200
    assert "cancelled" not in text
    assert api.http.get(path, headers=reader).status_code == 401


def test_long_streams_are_read_in_batches(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_BATCH", 3)
    job = api.grade_job(api.dataset()["id"])
    append(job["id"], *"abcdefgh")
    api.post(f"/jobs/{job['id']}/cancel")
    _, streamed, _ = stream(api, job["id"])
    assert [event["seq"] for event in streamed] == list(range(1, len(streamed) + 1))
    assert streamed[-1]["data"] == {"status": "cancelled"}


def test_a_stream_of_no_job_is_404(api: Api) -> None:
    for job_id in ("job_none", "job%00none"):
        answer = api.get(f"/jobs/{job_id}/events", headers={"Accept": "text/event-stream"})
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
