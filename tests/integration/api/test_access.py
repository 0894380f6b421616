"""Keys, roles, browser sessions: who may do what, and how everybody else is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.auth import end_web_session, find_usable_key, start_web_session
from app.cookies import SESSION_COOKIE
from app.db.models import ApiKey, AuditEntry, Role
from app.db.session import transaction
from app.keys import create_key
from tests.api_world import Api, headers_for

READS = ["/datasets", "/jobs", "/datasets/ds_x", "/jobs/job_x", "/jobs/job_x/events", "/jobs/job_x/metrics"]
WRITES = ["/datasets", "/jobs", "/jobs/job_x/cancel"]


def key(role: Role = Role.RESEARCHER, **fields: Any) -> str:
    with transaction() as session:
        return create_key(session, name="k", role=role, **fields)[1]


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def cookie_for(text: str) -> str:
    with transaction() as session:
        found = find_usable_key(session, text)
        assert found is not None
        return start_web_session(session, found)


def test_without_a_usable_key_nothing_is_told(api: Api) -> None:
    expired = key(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    revoked = key()
    with transaction() as session:
        session.execute(sa.update(ApiKey).where(ApiKey.hint == revoked[-4:]).values(revoked_at=sa.func.now()))
    for headers, said in [
        ({}, "no key"),
        (bearer("deft_" + "A" * 43), "unknown"),
        (bearer("x"), "unknown"),
        (bearer("\u00e9"), "unknown"),
        ({"Authorization": "Basic YTpi"}, "no key"),
        (bearer(expired), "expired"),
        (bearer(revoked), "revoked"),
        ({"Cookie": f"{SESSION_COOKIE}=nonsense"}, "unknown"),
    ]:
        for path in READS:
            answer = api.http.get(path, headers={k: v.encode() for k, v in headers.items()})
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert said in answer.json()["detail"]


def test_roles(api: Api) -> None:
    annotator = headers_for(Role.ANNOTATOR)
    for path in READS:
        assert api.http.get(path, headers=api.viewer).status_code in (200, 404)
        answer = api.http.get(path, headers=annotator)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    for path in WRITES:
        assert api.http.post(path, headers=api.viewer, json={}).status_code in (403, 422)
        assert api.http.post(path, headers=annotator, json={}).status_code in (404, 422)
    assert api.http.post("/jobs/job_x/cancel", headers=api.viewer).json()["code"] == "forbidden"
    assert api.http.post("/jobs/job_x/cancel", headers=annotator).status_code == 404
    assert api.http.delete("/datasets/ds_x", headers=api.viewer).status_code == 403
    for headers in (api.viewer, api.researcher):
        assert api.http.get("/keys", headers=headers).status_code == 403
    assert api.http.get("/keys", headers=annotator).status_code == 404


def test_a_key_is_shown_once_and_kept_as_a_hash(api: Api) -> None:
    answer = api.http.post("/keys", headers=api.admin, json={"name": "ci", "role": "viewer"})
    assert answer.status_code == 201
    made = answer.json()
    assert len(made["key"]) == len("deft_") + 43  # 256 bits in base64
    assert made["hint"] == made["key"][-4:]
    assert api.http.get("/jobs", headers=bearer(made["key"])).status_code == 200
    listed = api.http.get("/keys", headers=api.admin)
    assert made["id"] in [entry["id"] for entry in listed.json()["data"]]
    assert made["key"] not in listed.text
    with transaction() as session:
        for table in ("api_keys", "idempotency_keys", "audit_log"):
            assert made["key"] not in str(session.execute(sa.text(f"SELECT * FROM {table}")).all())


def test_a_revoked_key_ends_at_once_and_leaves_a_trace(api: Api) -> None:
    made = api.http.post("/keys", headers=api.admin, json={"name": "ci", "role": "admin"}).json()
    session_cookie = cookie_for(made["key"])
    gone = api.http.delete(f"/keys/{made['id']}", headers=api.admin)
    assert gone.status_code == 200
    assert gone.json()["revoked_at"] is not None
    assert api.http.get("/jobs", headers=bearer(made["key"])).status_code == 401
    assert api.http.get("/jobs", headers={"Cookie": f"{SESSION_COOKIE}={session_cookie}"}).status_code == 401
    with transaction() as session:
        actions = session.scalars(sa.select(AuditEntry.action).where(AuditEntry.target == made["id"])).all()
    assert sorted(actions) == ["key.create", "key.revoke"]
    assert api.http.delete("/keys/key_none", headers=api.admin).status_code == 404


def test_the_audit_log_names_who_and_the_request(api: Api) -> None:
    asked = {"name": "ci", "role": "viewer"}
    given = api.http.post("/keys", headers={**api.admin, "X-Request-Id": "by-hand.7"}, json=asked)
    made = api.http.post("/keys", headers=api.admin, json=asked)
    with transaction() as session:
        actor = find_usable_key(session, api.admin["Authorization"].removeprefix("Bearer "))
        entries = {
            entry.target: (entry.actor, entry.request_id) for entry in session.scalars(sa.select(AuditEntry))
        }
    assert actor is not None
    assert entries[given.json()["id"]] == (actor.id, "by-hand.7")
    assert entries[made.json()["id"]] == (actor.id, made.headers["x-request-id"])


def test_the_last_admin_key_stays(api: Api) -> None:
    admins = [k for k in api.http.get("/keys", headers=api.admin).json()["data"] if k["role"] == "admin"]
    refused = api.http.delete(f"/keys/{admins[0]['id']}", headers=api.admin)
    assert (refused.status_code, refused.json()["code"]) == (409, "last_admin_key")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"name": "", "role": "viewer"}, "/name"),
        ({"name": "x", "role": "annotator"}, "/role"),
        ({"name": "x", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"name": "x", "role": "viewer", "expires_at": "2099-01-01T00:00:00"}, "/expires_at"),
    ],
)  # fmt: skip
def test_keys_that_make_no_sense(api: Api, fields: dict[str, str], pointer: str) -> None:
    answer = api.http.post("/keys", headers=api.admin, json=fields)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


def test_a_key_in_an_address_is_refused_whatever_it_is_called(api: Api) -> None:
    text = key()
    for path in (f"/jobs?api_key={text}", f"/jobs?x={text}"):
        answer = api.http.get(path, headers=bearer(text))
        assert (answer.status_code, answer.json()["code"]) == (400, "key_in_address")
        assert text not in answer.text


def test_a_browser_session_reads_and_writes_from_our_own_pages_only(api: Api) -> None:
    cookie = cookie_for(key())
    session = {"Cookie": f"{SESSION_COOKIE}={cookie}"}
    path = "/jobs/job_x/cancel"
    assert api.http.get("/jobs", headers={**session, "Sec-Fetch-Site": "cross-site"}).status_code == 200
    own = [
        {"Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://testserver"},
    ]
    other = [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://testserver.evil.example"},
    ]
    for headers in own:
        assert api.http.post(path, headers={**session, **headers}).status_code == 404
    for headers in other:
        answer = api.http.post(path, headers={**session, **headers})
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_site_request"), headers
    with transaction() as database:
        end_web_session(database, cookie)
    assert api.http.get("/jobs", headers=session).status_code == 401


def test_a_session_ends_by_itself(api: Api) -> None:
    cookie = cookie_for(key())
    with transaction() as session:
        session.execute(sa.text("UPDATE web_sessions SET expires_at = now()"))
    assert api.http.get("/jobs", headers={"Cookie": f"{SESSION_COOKIE}={cookie}"}).status_code == 401


def test_when_a_key_was_used_is_noted(api: Api) -> None:
    text = key()
    api.http.get("/jobs", headers=bearer(text))
    with transaction() as session:
        assert session.scalar(sa.select(ApiKey.last_used_at).where(ApiKey.hint == text[-4:])) is not None
