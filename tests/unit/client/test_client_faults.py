"""The clients against a server that misbehaves."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from deft_client import AsyncDeftClient, DeftClient
from deft_client.aio_resources import Datasets as AsyncDatasets
from deft_client.aio_resources import Jobs as AsyncJobs
from deft_client.aio_resources import Keys as AsyncKeys
from deft_client.aio_study_resources import Studies as AsyncStudies
from deft_client.errors import APIError, Conflict, ConnectionFailed, DownloadCorrupted, Invalid, JobFailed
from deft_client.resources import Datasets, Jobs, Keys
from deft_client.study_resources import Studies
from tests.unit.client.scripted import JOB, Script, answer, cut, drop, stamina_without_waiting


def test_a_retried_create_carries_the_same_idempotency_key(script: Script) -> None:
    script.answers = [drop, answer(503, {"detail": "starting"}), answer(201, {**JOB, "status": "queued"})]
    with DeftClient(script.url, "deft_k") as client:
        job = client.jobs.create({"kind": "align"})
    assert job.id == "job_1"
    keys = {headers["Idempotency-Key"] for _, _, headers, _ in script.requests}
    assert len(script.requests) == 3
    assert len(keys) == 1


def test_a_move_is_not_repeated(script: Script) -> None:
    script.answers = [answer(503, {"detail": "starting", "code": "unavailable"})]
    with DeftClient(script.url) as client, pytest.raises(APIError) as caught:
        client.jobs.cancel("job_1")
    assert caught.value.status == 503
    assert len(script.requests) == 1


def test_problems_become_exceptions_that_name_the_places(script: Script) -> None:
    errors = [{"pointer": "/deft/a", "code": "too_large", "detail": "a + c is 120"}]
    script.answers = [
        answer(422, {"code": "invalid_request", "detail": "see errors", "errors": errors}),
        answer(409, {"code": "illegal_move", "detail": "succeeded jobs do not move"}),
    ]
    with DeftClient(script.url) as client:
        with pytest.raises(Invalid, match=r"/deft/a: a \+ c is 120"):
            client.jobs.create({})
        with pytest.raises(Conflict, match="succeeded jobs do not move"):
            client.jobs.pause("job_1")


def test_a_service_that_is_not_there_is_said_plainly() -> None:
    client = DeftClient("http://127.0.0.1:9")
    with client, stamina_without_waiting(), pytest.raises(ConnectionFailed, match="does not answer"):
        client.jobs.retrieve("job_1")


CONTENT = bytes(range(256)) * 64
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LISTING = {"data": [{"name": "model/w.bin", "sha256": SHA256, "size": len(CONTENT)}]}
ETAG = {"ETag": f'"{SHA256}"'}


def rest_of_it(handler: BaseHTTPRequestHandler) -> None:
    start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    assert handler.headers["If-Range"] == f'"{SHA256}"'
    answer(206, CONTENT[start:], ETAG)(handler)


def test_a_download_that_was_cut_goes_on_where_it_stopped(script: Script, tmp_path: Path) -> None:
    script.answers = [answer(200, LISTING), cut(CONTENT[:5000], len(CONTENT), ETAG), rest_of_it]
    with DeftClient(script.url) as client:
        client.jobs.download("job_1", "model", tmp_path / "m")
    assert (tmp_path / "m" / "w.bin").read_bytes() == CONTENT
    assert script.requests[-1][2]["Range"] == "bytes=5000-"
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["w.bin"]


def test_a_download_with_other_bytes_is_refused(script: Script, tmp_path: Path) -> None:
    script.answers = [answer(200, LISTING), answer(200, CONTENT[::-1])]
    with DeftClient(script.url) as client, pytest.raises(DownloadCorrupted, match=SHA256):
        client.jobs.download("job_1", "model", tmp_path / "m")
    assert list((tmp_path / "m").iterdir()) == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_any_name_of_an_artifact_can_be_asked_for(script: Script, tmp_path: Path, asynchronous: bool) -> None:
    name = "model/50% #1?\u00fc.bin"
    script.answers = [
        answer(200, {"data": [{**LISTING["data"][0], "name": name}]}),
        answer(200, CONTENT, ETAG),
    ]

    async def use() -> None:
        async with AsyncDeftClient(script.url) as client:
            await client.jobs.download("job_1", name, tmp_path / "w.bin")

    if asynchronous:
        asyncio.run(use())
    else:
        with DeftClient(script.url) as client:
            client.jobs.download("job_1", name, tmp_path / "w.bin")
    assert script.requests[-1][1] == "/jobs/job_1/artifacts/model/50%25%20%231%3F%C3%BC.bin"
    assert (tmp_path / "w.bin").read_bytes() == CONTENT


def test_an_artifact_name_cannot_leave_the_folder(script: Script, tmp_path: Path) -> None:
    listing = {"data": [{"name": "model/../../evil", "sha256": SHA256, "size": 1}]}
    script.answers = [answer(200, listing)]
    with DeftClient(script.url) as client, pytest.raises(DownloadCorrupted, match="leaves the folder"):
        client.jobs.download("job_1", "model", tmp_path / "m")


def sse(*events: tuple[int, str, dict[str, Any]]) -> bytes:
    return b"".join(
        f"id: {seq}\ndata: {json.dumps({'type': kind, 'data': data})}\n\n: heartbeat\n\n".encode()
        for seq, kind, data in events
    )


def test_events_across_a_broken_connection_come_once_each(script: Script) -> None:
    first = sse((1, "log", {}), (2, "log", {})) + b"id: 3\nda"
    second = sse((2, "log", {}), (3, "log", {}), (4, "job.status", {"status": "succeeded"}))
    script.answers = [
        cut(first, 10_000),
        answer(200, {**JOB, "status": "running"}),
        answer(200, second, {"Content-Type": "text/event-stream"}),
    ]
    with DeftClient(script.url) as client:
        seen = [event.seq for event in client.jobs.events("job_1")]
    assert seen == [1, 2, 3, 4]
    assert script.requests[-1][2]["Last-Event-ID"] == "2"


def page_of_events(first: int, last: int, *, has_more: bool) -> dict[str, Any]:
    time = "2026-01-01T00:00:00Z"
    events = [{"seq": seq, "type": "log", "time": time, "data": {}} for seq in range(first, last + 1)]
    return {"data": events, "has_more": has_more}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_an_ended_job_has_left_is_read_page_by_page(script: Script, asynchronous: bool) -> None:
    script.answers = [
        answer(200, sse((1, "log", {}))),
        answer(200, {**JOB, "status": "succeeded"}),
        answer(200, page_of_events(2, 21, has_more=True)),
        answer(200, page_of_events(22, 41, has_more=True)),
        answer(200, page_of_events(42, 45, has_more=False)),
    ]

    async def use() -> list[int]:
        async with AsyncDeftClient(script.url) as client:
            return [event.seq async for event in client.jobs.events("job_1")]

    if asynchronous:
        seen = asyncio.run(use())
    else:
        with DeftClient(script.url) as client:
            seen = [event.seq for event in client.jobs.events("job_1")]
    assert seen == list(range(1, 46))
    asked = [parse_qs(urlsplit(path).query)["after"] for _, path, _, _ in script.requests[2:]]
    assert asked == [["1"], ["21"], ["41"]]


def test_wait_reports_progress_and_raises_for_a_failed_job(script: Script) -> None:
    error = {"code": "out_of_memory", "message": "memory ran out", "hint": "lower the batch size"}
    script.answers = [
        answer(200, {**JOB, "status": "running"}),
        answer(200, {**JOB, "status": "failed", "error": error}),
    ]
    seen: list[str] = []
    with DeftClient(script.url) as client, pytest.raises(JobFailed, match="lower the batch size"):
        client.jobs.wait("job_1", poll=0, on_progress=lambda job: seen.append(job.status))
    assert seen == ["running", "failed"]


def test_an_upload_streams_the_file_with_its_fields(script: Script, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b'{"a": 1}\n')
    script.answers = [drop, answer(201, {"id": "ds_1", "name": "n", "status": "ready", "sha256": "0"})]
    read: list[int] = []
    with DeftClient(script.url) as client:
        dataset = client.datasets.upload(path, name="n", subset="s", on_bytes=read.append)
    assert dataset.id == "ds_1"
    body = script.requests[-1][3]
    assert b'name="subset"' in body
    assert b'filename="pairs.jsonl"' in body
    assert b'{"a": 1}\n' in body
    assert sum(read) >= 9


def test_the_asynchronous_client_does_the_same(script: Script, tmp_path: Path) -> None:
    script.answers = [
        drop,
        answer(201, {**JOB, "status": "queued"}),
        answer(200, {**JOB, "status": "succeeded"}),
        answer(200, LISTING),
        cut(CONTENT[:100], len(CONTENT), ETAG),
        rest_of_it,
        answer(200, sse((1, "job.status", {"status": "succeeded"}))),
    ]

    async def use() -> list[int]:
        async with AsyncDeftClient(script.url, "deft_k") as client:
            job = await client.jobs.create({"kind": "align"})
            await client.jobs.wait(job.id, poll=0)
            await client.jobs.download(job.id, "model", tmp_path / "m")
            return [event.seq async for event in client.jobs.events(job.id)]

    assert asyncio.run(use()) == [1]
    assert (tmp_path / "m" / "w.bin").read_bytes() == CONTENT
    assert {headers["Authorization"] for _, _, headers, _ in script.requests} == {"Bearer deft_k"}


@pytest.mark.parametrize(
    ("one", "other"),
    [(Datasets, AsyncDatasets), (Jobs, AsyncJobs), (Studies, AsyncStudies), (Keys, AsyncKeys)],
)
def test_both_clients_have_the_same_methods(one: type, other: type) -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        public = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(f).parameters) for name, f in public if name[0] != "_"}

    assert methods(one) == methods(other)


def test_a_file_that_is_wrong_as_a_whole_has_a_ledger_without_lines(script: Script) -> None:
    entry = {"line": None, "code": "invalid_format", "detail": "the Parquet file is damaged"}
    script.answers = [answer(200, {"object": "list", "data": [entry], "has_more": False})]
    with DeftClient(script.url) as client:
        (found,) = client.datasets.validation("ds_1").data
    assert (found.line, found.code) == (None, "invalid_format")
