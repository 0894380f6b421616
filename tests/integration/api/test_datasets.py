"""Datasets: uploads in both forms, what was read of them, and their end."""

from __future__ import annotations

import gzip
import hashlib
import json
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.db.claims import fail
from app.db.models import Dataset, DatasetStatus
from app.db.session import transaction
from app.settings import get_settings
from tests.api_world import ENDED, RANKED, Api, jsonl, run_stages, stage_run_of, take


def stored(sha256: str) -> bool:
    return (get_settings().store_root / sha256[:2] / sha256).exists()


def partials() -> list[Path]:
    return list(get_settings().uploads_root.iterdir())


def test_a_form_is_stored_hashed_and_read(api: Api) -> None:
    content = jsonl(RANKED)
    uploaded = api.upload(content, name="mine", subset="rest")
    assert uploaded["status"] == "processing"
    assert (uploaded["name"], uploaded["subset"], uploaded["size"]) == ("mine", "rest", len(content))
    assert uploaded["sha256"] == hashlib.sha256(content).hexdigest()
    assert stored(uploaded["sha256"])
    assert partials() == []
    run_stages("import")
    found = api.get(f"/datasets/{uploaded['id']}").json()
    assert found["status"] == "ready"
    assert found["format"] == "ranked"
    assert (found["rows"], found["samples"], found["rejected"], found["scored"]) == (8, 8, 0, 8)
    assert found["subsets"] == {"harmless": 4, "helpful": 4}
    assert found["responses_per_sample"] == {"2": 8}


@pytest.mark.parametrize("content_type", ["application/octet-stream", "application/x-www-form-urlencoded"])
def test_a_raw_body_takes_its_fields_from_the_address(api: Api, content_type: str) -> None:
    content = gzip.compress(jsonl(RANKED))
    answer = api.post(
        "/datasets",
        params={"name": "raw", "format": "ranked"},
        content=content,
        headers={"Content-Type": content_type},
    )
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/datasets/{answer.json()['id']}"
    assert answer.json()["sha256"] == hashlib.sha256(content).hexdigest()
    assert (answer.json()["name"], answer.json()["format"]) == ("raw", "ranked")


def test_the_same_bytes_again_are_another_dataset_of_the_same_reading(api: Api) -> None:
    first = api.dataset()
    second = api.upload(jsonl(RANKED), name="again")
    assert second["id"] != first["id"]
    assert second["status"] == "ready"
    assert second["samples"] == 8


def test_a_broken_line_is_in_the_ledger(api: Api) -> None:
    rows = jsonl([{"prompt": f"Q{i}?", "responses": ["good", "bad"]} for i in range(40)])
    uploaded = api.upload(rows + b'{"prompt": broken\n', format="ranked")
    run_stages("import")
    ledger = api.get(f"/datasets/{uploaded['id']}/validation").json()["data"]
    assert [entry["line"] for entry in ledger] == [41]
    assert "JSON" in ledger[0]["detail"]


def test_an_array_and_a_parquet_file_are_datasets_with_rows(api: Api) -> None:
    buffer = BytesIO()
    rows = [*RANKED, {**RANKED[0], "responses": RANKED[0]["responses"][:1]}]
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    uploaded = api.upload(gzip.compress(buffer.getvalue()), name="columns")
    array = api.upload(json.dumps([{"prompt": "Q?", "responses": ["only one"]}]).encode(), name="array")
    run_stages("import")
    found = api.get(f"/datasets/{uploaded['id']}").json()
    assert (found["status"], found["format"], found["samples"], found["rejected"]) == (
        "ready",
        "ranked",
        8,
        1,
    )
    ledger = api.get(f"/datasets/{uploaded['id']}/validation").json()["data"]
    assert [(entry["line"], entry["code"]) for entry in ledger] == [(9, "too_few_responses")]
    error = api.get(f"/datasets/{array['id']}").json()["error"]
    assert (error["line"], error["code"]) == (1, "too_few_responses")
    assert error["message"].startswith("row 1: ")


def test_a_file_with_nothing_usable_is_invalid(api: Api) -> None:
    uploaded = api.upload(jsonl([{"prompt": "Q?", "responses": ["only one"]}]), format="ranked")
    run_stages("import")
    found = api.get(f"/datasets/{uploaded['id']}").json()
    assert found["status"] == "invalid"
    assert found["error"]["code"]
    assert found["error"]["hint"]
    ledger = api.get(f"/datasets/{uploaded['id']}/validation").json()
    assert ledger["data"][0]["detail"]
    samples = api.get(f"/datasets/{uploaded['id']}/samples")
    assert (samples.status_code, samples.json()["code"]) == (409, "dataset_not_ready")
    job = {"kind": "grade", "dataset": uploaded["id"], "model": {"base": "tiny"}}
    refused = api.post("/jobs", json=job)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_dataset")


def test_the_ledger_of_a_file_with_nothing_usable_has_every_row(api: Api) -> None:
    bad = [{"prompt": f"Q{i}?", "responses": ["one"]} for i in range(3)]
    uploaded = api.upload(jsonl([*bad, {"prompt": "Q"}]))
    run_stages("import")
    found = api.get(f"/datasets/{uploaded['id']}").json()
    assert (found["status"], found["format"]) == ("invalid", "ranked")
    assert (found["rows"], found["samples"], found["rejected"]) == (4, 0, 4)
    assert (found["responses_per_sample"], found["subsets"]) == ({}, {})
    path = f"/datasets/{uploaded['id']}/validation"
    first = api.get(path, params={"limit": 3}).json()
    rest = api.get(path, params={"limit": 3, "after": 3}).json()
    entries = [(entry["line"], entry["code"]) for entry in first["data"] + rest["data"]]
    assert entries == [(1, "too_few_responses"), (2, "too_few_responses"), (3, "too_few_responses"),
                       (4, "missing_field")]  # fmt: skip
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert set(found["error"]) == {"code", "message", "hint", "line"}


FORM = {"Content-Type": "multipart/form-data"}
BAD_UPLOADS = [
    ({"files": {"file": ("empty.jsonl", b"")}}, "empty_file", "/file"),
    ({"files": {"other": ("a.jsonl", b"{}")}}, "unknown_field", "/other"),
    ({"files": {"file": ("a", b"{}")}, "data": {"format": "csv"}}, "literal_error", "/format"),
    ({"files": {"file": ("a", b"{}")}, "data": {"name": "a\x00b"}}, "value_error", "/name"),
    ({"files": {"file": ("a", b"{}")}, "data": {"name": "n" * 201}}, "string_too_long", "/name"),
    ({"files": {"file": ("a", b"{}")}, "data": {"name": "n" * 9999}}, "too_long", "/name"),
    ({"files": [("file", ("a", b"{}")), ("file", ("b", b"{}"))]}, "two_files", "/file"),
    ({"files": {"file": ("a", b"{}")}, "data": {"name": ["a", "b"]}}, "two_fields", "/name"),
    ({"files": {"file": ("a", b"{}"), "subset": (None, b"\xff")}}, "invalid_utf8", "/subset"),
    ({"files": {"name": (None, "x")}}, "missing", "/file"),
    ({"content": b""}, "empty_file", "/file"),
    ({"content": b"no", "headers": {"Content-Type": "multipart/form-data;boundary=b"}}, "malformed_form", ""),
    ({"content": b"no", "headers": FORM}, "malformed_form", ""),
]  # fmt: skip


def test_bad_uploads_are_told_what_is_wrong(api: Api) -> None:
    for request_fields, code, pointer in BAD_UPLOADS:
        answer = api.post("/datasets", **dict(request_fields))
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        found = answer.json()["errors"][0]
        assert (found["code"], found["pointer"]) == (code, pointer), request_fields
    assert partials() == []


def test_a_form_that_breaks_off_inside_the_file_leaves_nothing(api: Api) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        + jsonl(RANKED)[:100]
    )
    answer = api.post("/datasets", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "malformed_form")
    assert partials() == []
    assert api.get("/datasets").json()["data"] == []


def test_an_upload_above_the_cap_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFT_MAX_UPLOAD_BYTES", "1000")
    get_settings.cache_clear()

    def pieces() -> object:  # without Content-Length
        for _ in range(50):
            yield b"x" * 100

    for request_fields in ({"content": b"x" * 3_000_000}, {"content": pieces()}):
        answer = api.post("/datasets", **request_fields)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert partials() == []


def test_a_full_disk_is_507_and_leaves_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deft_engine.store.os.link", full)
    monkeypatch.setattr("deft_engine.store.shutil.copyfile", full)
    answer = api.post("/datasets", files={"file": ("a.jsonl", jsonl(RANKED))})
    assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
    assert "free" in answer.json()["detail"]
    assert partials() == []
    assert api.get("/datasets").json()["data"] == []


def test_lists_are_keyset_pages(api: Api) -> None:
    ids = [api.upload(jsonl(RANKED), name=f"n{i}")["id"] for i in range(5)]
    first = api.get("/datasets", params={"limit": 2}).json()
    second = api.get("/datasets", params={"limit": 2, "after": first["data"][-1]["id"]}).json()
    third = api.get("/datasets", params={"limit": 2, "after": second["data"][-1]["id"]}).json()
    pages = [first, second, third]
    assert [entry["id"] for page in pages for entry in page["data"]] == ids[::-1]
    assert [page["has_more"] for page in pages] == [True, True, False]
    assert api.get("/datasets", params={"limit": 2, "after": ""}).json() == first
    unknown = api.get("/datasets", params={"after": "ds_unknown"})
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (422, "after")


def test_the_ledger_is_paged_and_complete(api: Api) -> None:
    bad = [{"prompt": f"Q{i}?", "responses": ["one"]} for i in range(5)]
    dataset = api.dataset(RANKED + bad)
    assert dataset["rejected"] == 5
    path = f"/datasets/{dataset['id']}/validation"
    first = api.get(path, params={"limit": 3}).json()
    rest = api.get(path, params={"limit": 3, "after": first["data"][-1]["line"]}).json()
    assert [entry["line"] for entry in first["data"] + rest["data"]] == [9, 10, 11, 12, 13]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert all(entry["code"] and "2" in entry["detail"] for entry in first["data"])


def test_samples_of_a_subset_are_found_however_long_its_name_is(api: Api) -> None:
    dataset = api.dataset([{**row, "subset": "s" * 500} for row in RANKED])
    found = api.get(f"/datasets/{dataset['id']}/samples", params={"subset": "s" * 500, "after": ""}).json()
    assert len(found["data"]) == len(RANKED)


def test_samples_are_as_annotated_and_paged_by_id(api: Api) -> None:
    dataset = api.dataset()
    path = f"/datasets/{dataset['id']}/samples"
    first = api.get(path, params={"limit": 3}).json()
    assert first["data"][0] == {
        "id": "s0",
        "subset": "harmless",
        "prompt": [{"role": "user", "content": "Question 0?"}],
        "responses": [{"text": "Good answer 0", "reward": 1.0}, {"text": "Bad 0", "reward": -1.0}],
        "line": 1,
        "level": None,
    }
    second = api.get(path, params={"limit": 9, "after": "s2"}).json()
    assert [s["id"] for s in first["data"] + second["data"]] == [row["id"] for row in RANKED]
    helpful = api.get(path, params={"subset": "helpful"}).json()["data"]
    assert [s["id"] for s in helpful] == ["s1", "s3", "s5", "s7"]
    assert api.get(path, params={"subset": "none"}).json()["data"] == []
    assert api.get(path, params={"after": "nobody"}).status_code == 422
    assert api.get(path, params={"level": "D"}).status_code == 422
    ungraded = api.get(path, params={"level": "A"})
    assert (ungraded.status_code, ungraded.json()["code"]) == (409, "not_graded")


def test_samples_carry_the_levels_of_the_newest_grading_or_of_a_job(api: Api) -> None:
    dataset = api.dataset()
    path = f"/datasets/{dataset['id']}/samples"
    first = api.grade_job(dataset["id"], a=25, c=25)
    run_stages("score", "grade")
    second = api.grade_job(dataset["id"], a=50, c=25)
    run_stages("grade")

    def ids(**params: str) -> list[str]:
        return [sample["id"] for sample in api.get(path, params=params).json()["data"]]

    # The score of a sample of two is that of y_1: 1 + i. Of a subset's 4 samples, a = 25 % is the best one.
    assert ids(level="A", job=first["id"]) == ["s6", "s7"]
    assert ids(level="A") == ids(level="A", job=second["id"]) == ["s4", "s5", "s6", "s7"]
    assert ids(level="C", subset="helpful") == ["s1"]
    assert ids(level="A", after="s5", limit="1") == ["s6"]
    assert {s["level"] for s in api.get(path).json()["data"]} == {"A", "B", "C"}
    assert api.get(path, params={"job": "job_unknown"}).status_code == 409


def test_a_dataset_in_use_is_not_deleted(api: Api) -> None:
    dataset = api.dataset()
    job = api.grade_job(dataset["id"])
    path = f"/datasets/{dataset['id']}"
    refused = api.http.delete(path, headers=api.researcher)
    assert (refused.status_code, refused.json()["code"]) == (409, "dataset_in_use")
    assert refused.json()["jobs"] == [job["id"]]
    api.post(f"/jobs/{job['id']}/cancel")
    assert api.http.delete(path, headers=api.researcher).status_code == 204
    assert api.get(path).status_code == 404
    assert not stored(dataset["sha256"])


def test_bytes_that_another_dataset_has_stay(api: Api) -> None:
    first, second = api.dataset(), api.upload(jsonl(RANKED))
    assert api.http.delete(f"/datasets/{first['id']}", headers=api.researcher).status_code == 204
    assert stored(second["sha256"])


def test_deleting_before_it_is_read_cancels_the_reading(api: Api) -> None:
    uploaded = api.upload(jsonl(RANKED))
    assert uploaded["status"] == DatasetStatus.PROCESSING
    assert api.http.delete(f"/datasets/{uploaded['id']}", headers=api.researcher).status_code == 204
    assert not stored(uploaded["sha256"])
    again = api.upload(jsonl(RANKED))
    run_stages("import")
    assert api.get(f"/datasets/{again['id']}").json()["status"] == "ready"


def test_an_upload_that_a_worker_reads_is_not_deleted_under_it(api: Api) -> None:
    first, second = api.upload(jsonl(RANKED)), api.upload(jsonl(RANKED))
    with transaction() as session:
        reading = take(session.get_one(Dataset, first["id"]).import_run_id)
    assert api.http.delete(f"/datasets/{first['id']}", headers=api.researcher).status_code == 204
    path = f"/datasets/{second['id']}"
    refused = api.http.delete(path, headers=api.researcher)
    assert (refused.status_code, refused.json()["code"]) == (409, "dataset_processing")
    assert stored(second["sha256"])
    error = {"code": "bad_data", "message": "no", "hint": "", "retryable": False}
    with transaction() as session:
        fail(session, reading, error=error, ended=ENDED)
    assert api.get(path).json()["status"] == "invalid"
    assert api.http.delete(path, headers=api.researcher).status_code == 204
    assert not stored(second["sha256"])


def test_a_job_may_name_a_dataset_that_is_still_read(api: Api) -> None:
    uploaded = api.upload(jsonl(RANKED))
    job = api.grade_job(uploaded["id"])
    assert [(s["name"], s["status"]) for s in job["stages"]][:2] == [
        ("import", "ready"),
        ("score", "waiting"),
    ]
    take(stage_run_of(job, "import"))
    assert api.get(f"/jobs/{job['id']}").json()["status"] == "running"
