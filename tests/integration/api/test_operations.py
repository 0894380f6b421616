"""Health, figures, headers, ids of requests, and what importing the service loads."""

from __future__ import annotations

import subprocess
import sys

import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from app.db.session import transaction
from app.settings import get_settings
from tests.api_world import Api


def test_it_is_alive_and_ready(api: Api) -> None:
    assert api.http.get("/healthz").json() == {"status": "ok"}
    assert api.http.get("/readyz").json() == {"status": "ok"}


@pytest.mark.parametrize(("variable", "url", "code"), [
    ("DEFT_REDIS_URL", "redis://127.0.0.1:1/0", "broker_unavailable"),
    ("DEFT_DATABASE_URL", "postgresql+psycopg://x@127.0.0.1:1/x", "database_unavailable"),
])  # fmt: skip
def test_it_is_not_ready_without_its_servers(
    api: Api, monkeypatch: pytest.MonkeyPatch, variable: str, url: str, code: str
) -> None:
    from app.db import session

    monkeypatch.setenv(variable, url)
    for cached in (get_settings, session.get_engine, session._factory):
        cached.cache_clear()
    answer = api.http.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, code)
    assert api.http.get("/healthz").status_code == 200
    if code == "database_unavailable":
        down = api.get("/jobs")
        assert (down.status_code, down.json()["code"]) == (503, code)
        assert down.headers["retry-after"]


def test_a_full_disk_of_the_database_is_507(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        with transaction() as session:
            session.execute(sa.text("DO $$ BEGIN RAISE disk_full USING MESSAGE = 'no space left'; END $$"))

    monkeypatch.setattr("app.api.keys.create_key", full)
    answer = api.http.post("/keys", json={"name": "x", "role": "viewer"}, headers=api.admin)
    assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
    assert "free" in answer.json()["detail"]


def test_figures_for_prometheus(api: Api) -> None:
    api.grade_job(api.dataset()["id"])
    api.get("/jobs/job_none")
    families = {f.name: f for f in text_string_to_metric_families(api.http.get("/metrics").text)}
    jobs = {sample.labels["status"]: sample.value for sample in families["deft_jobs"].samples}
    assert jobs == {"queued": 1}
    live = {
        (s.labels["stage"], s.labels["status"]): s.value for s in families["deft_live_stage_runs"].samples
    }
    assert live[("score", "ready")] == 1
    assert live[("grade", "waiting")] == 1
    attempts = {sample.labels["status"]: sample.value for sample in families["deft_attempts"].samples}
    assert attempts == {"succeeded": 1}
    routes = {sample.labels["route"] for sample in families["deft_http_requests"].samples}
    assert "/jobs/{job_id}" in routes
    assert not any("job_none" in route for route in routes)


def test_every_answer_has_an_id_and_headers_for_browsers(api: Api) -> None:
    for path in ("/healthz", "/jobs", "/nowhere", "/jobs/job_none"):
        answer = api.get(path)
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        if answer.status_code >= 400:
            assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert api.get("/jobs", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert api.get("/jobs", headers={"X-Request-Id": "a b\t"}).headers["x-request-id"].startswith("req_")


def test_other_methods_and_addresses(api: Api) -> None:
    other = api.http.put("/jobs", headers=api.researcher)
    assert (other.status_code, other.json()["code"]) == (405, "method_not_allowed")
    assert set(other.headers["allow"].split(", ")) == {"GET", "POST"}
    for path in ("/", "/docs", "/jobs/", "/redoc"):
        answer = api.http.get(path)
        assert answer.status_code == 404 or path == "/"
    large = api.post("/jobs", content=b"x" * 5_000_000, headers={"Content-Type": "application/json"})
    assert (large.status_code, large.json()["code"]) == (413, "too_large")


def test_a_defect_is_answered_without_its_inside(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object) -> None:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr("app.api.jobs.view_job", defect)
    job = api.post("/jobs", json={"kind": "grade", "dataset": api.dataset()["id"], "model": {"base": "tiny"}})
    assert (job.status_code, job.json()["code"]) == (500, "internal_error")
    assert job.headers["content-type"] == "application/problem+json"
    assert "secret" not in job.text
    assert api.get("/jobs").json()["data"] == []  # the transaction was rolled back


def test_importing_the_service_loads_no_model_library() -> None:
    code = (
        "import sys; from app.main import create_app; create_app().openapi();"
        "print([m for m in ('torch', 'transformers', 'tokenizers', 'accelerate') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
