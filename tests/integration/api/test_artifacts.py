"""Artifacts: listed with their hashes, sent whole or in ranges."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from app.db.media_types import media_type
from tests.api_world import RANKED, Api, finish, jsonl, make_ready, run_stages, stage_run_of, take

WEIGHTS = bytes(range(256)) * 4000
FILES = {"model/config.json": b'{"model_type": "llama"}', "model/model.safetensors": WEIGHTS}


@pytest.fixture
def job(api: Api) -> dict[str, Any]:
    """A job whose train stage has made its model."""
    dataset, evaluation = api.dataset()["id"], api.dataset(RANKED[:4])["id"]
    spec = {"kind": "align", "dataset": dataset, "eval_dataset": evaluation, "evaluation": {}, "deft": None}
    job = api.job(**spec, name="j", model={"base": "tiny"})
    make_ready(job["id"], "train")
    finish(take(stage_run_of(job, "train")), FILES, {"steps": 1})
    return job


def listed(api: Api, job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    answer = api.get(f"/jobs/{job['id']}/artifacts").json()
    assert answer["has_more"] is False
    return {entry["name"]: entry for entry in answer["data"]}


def download(api: Api, job: dict[str, Any], name: str, **headers: str) -> Any:
    return api.get(f"/jobs/{job['id']}/artifacts/{name}", headers=headers)


def test_the_list_has_the_files_of_all_stages_reused_ones_too(api: Api, job: dict[str, Any]) -> None:
    found = listed(api, job)
    second_import = [stage["run"] for stage in job["stages"] if stage["name"] == "import"][1]
    read = {"samples.parquet", "ledger.jsonl"}
    assert set(found) == {*read, *(f"{second_import}/{name}" for name in read), *FILES}
    weights = found["model/model.safetensors"]
    assert (weights["size"], weights["stage"]) == (len(WEIGHTS), "train")
    assert weights["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert api.get(weights["url"]).content == WEIGHTS


def test_the_list_is_paged_where_a_limit_is_given(api: Api, job: dict[str, Any]) -> None:
    path = f"/jobs/{job['id']}/artifacts"
    names, after, more = [], "", True
    while more:
        page = api.get(path, params={"limit": 4, "after": after}).json()
        names += [entry["name"] for entry in page["data"]]
        assert len(page["data"]) <= 4
        after, more = page["data"][-1]["id"], page["has_more"]
    assert names == list(listed(api, job))
    unknown = api.get(path, params={"after": "art_unknown"})
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (422, "after")


def test_every_media_type_is_declared(api: Api, job: dict[str, Any]) -> None:
    address = "/jobs/{job_id}/artifacts/{name}"
    answers = api.http.get("/openapi.json").json()["paths"][address]["get"]["responses"]
    sent = {entry["media_type"] for entry in listed(api, job).values()} | {media_type("report.html")}
    assert len(sent) > 3
    assert sent <= set(answers["200"]["content"])
    assert sent <= set(answers["206"]["content"])
    assert answers["200"]["content"]["application/json"] == {"schema": {}}  # any JSON, not a string


def test_a_download_is_whole_and_named_by_its_hash(api: Api, job: dict[str, Any]) -> None:
    answer = download(api, job, "model/config.json")
    assert answer.status_code == 200
    assert answer.content == FILES["model/config.json"]
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-disposition"] == 'attachment; filename="config.json"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    head = api.http.head(f"/jobs/{job['id']}/artifacts/model/config.json", headers=api.researcher)
    assert (head.status_code, head.content, head.headers["content-length"]) == (
        200, b"", str(len(answer.content)),
    )  # fmt: skip


def test_a_range_is_a_part(api: Api, job: dict[str, Any]) -> None:
    cases = [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-", 1000, None),
        ("bytes=-5", -5, None),
        ("bytes=9-9999999", 9, None),
    ]
    for asked, start, end in cases:
        answer = download(api, job, "model/model.safetensors", Range=asked)
        assert (answer.status_code, answer.content) == (206, WEIGHTS[start:end]), asked
        first = start % len(WEIGHTS)
        last = first + len(answer.content) - 1
        assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(WEIGHTS)}"


def test_a_cut_download_is_resumed_only_for_the_same_content(api: Api, job: dict[str, Any]) -> None:
    etag = f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    name = "model/model.safetensors"
    same = download(api, job, name, **{"Range": "bytes=500-", "If-Range": etag})
    assert (same.status_code, same.content) == (206, WEIGHTS[500:])
    other = download(api, job, name, **{"Range": "bytes=500-", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, WEIGHTS)
    beyond = download(api, job, name, **{"Range": "bytes=99999999-", "If-Range": '"other"'})
    assert beyond.status_code == 200
    assert download(api, job, name, **{"If-None-Match": etag}).status_code == 304
    assert download(api, job, name, **{"If-None-Match": f'"x", W/{etag}'}).status_code == 304
    assert download(api, job, name, **{"If-None-Match": '"x"'}).status_code == 200


def test_a_range_that_cannot_be_sent(api: Api, job: dict[str, Any]) -> None:
    malformed = ("bytes=5-2", "bytes=a-b", "bytes=", "bytes=\u0661-", "bytes=0-" + "9" * 5000)
    outside = ("bytes=-0", "bytes=99999999-", "bytes=0-1,99999999-")
    for asked in malformed + outside:
        path = f"/jobs/{job['id']}/artifacts/model/model.safetensors"
        answer = api.http.get(path, headers=[*api.researcher.items(), ("Range", asked.encode())])
        assert answer.status_code == (416 if asked in outside else 400), asked
        assert answer.headers["content-type"] == "application/problem+json"
        if asked in outside:
            assert answer.headers["content-range"] == f"bytes */{len(WEIGHTS)}"


def test_a_range_that_means_nothing_here_is_ignored(api: Api, job: dict[str, Any]) -> None:
    name = "model/model.safetensors"
    for asked in ("lines=1-2", "1-2", ""):
        answer = download(api, job, name, Range=asked)
        assert (answer.status_code, answer.content) == (200, WEIGHTS), asked
    path, ranged = f"/jobs/{job['id']}/artifacts/{name}", {**api.researcher, "Range": "bytes=0-1"}
    head = api.http.head(path, headers=ranged)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(WEIGHTS)))
    assert download(api, job, name, Range="BYTES=0-1").content == WEIGHTS[:2]


def test_other_names_are_404(api: Api, job: dict[str, Any]) -> None:
    names = ("model", "model/", "..%2f..%2fetc%2fpasswd", "/etc/passwd", "%2e%2e/x", "model/config.json/")
    stranger = (
        "model%00",
        "MODEL/CONFIG.JSON",
        "samples.parquet%20",
        "a" * 3000,
        "model/%2e%2e/model/config.json",
    )
    for name in names + stranger:
        answer = api.http.get(f"/jobs/{job['id']}/artifacts/{name}", headers=api.researcher)
        assert answer.status_code == 404, name
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_folder_names_its_files(api: Api, job: dict[str, Any]) -> None:
    detail = download(api, job, "model").json()["detail"]
    assert "model/config.json" in detail
    assert "model/model.safetensors" in detail


def test_a_finished_job_has_its_manifest(api: Api) -> None:
    job = api.grade_job(api.upload(jsonl(RANKED))["id"])
    run_stages("import", "score", "grade")
    make_ready(job["id"], "distribution")
    finish(take(stage_run_of(job, "distribution")), {"qdiff.safetensors": b"q"})
    manifest = download(api, job, "manifest.json")
    assert manifest.status_code == 200
    assert manifest.json()["job"] == job["id"]
    assert {"scores.parquet", "levels.parquet", "grading.json"} <= set(listed(api, job))
    report = download(api, job, "report.html")
    assert report.headers["Content-Type"].startswith("text/html")
    assert report.headers["Content-Disposition"].startswith("inline")
    assert "sandbox" in report.headers["Content-Security-Policy"]
    assert "Level A" in report.text
