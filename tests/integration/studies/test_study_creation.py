"""Creating studies and inviting raters: what is frozen, and what is refused with which place."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from sqlalchemy import select

from app.auth import find_usable_key, start_web_session
from app.cookies import RATER_COOKIE, SESSION_COOKIE
from app.db.models import Annotator, ApiKey, AuditEntry, JobStatus, StudyItem
from app.db.session import transaction
from app.studies.sampling import choose
from tests.study_world import Service, evaluated_job, job_without_evaluation, rows

COUNTS = {"harmless-base": 6, "helpful-base": 6}


def test_study_freezes_the_chosen_pairs(service: Service) -> None:
    study = service.study(COUNTS, per_subset=4, seed=9)
    assert study["subsets"] == {"harmless-base": 4, "helpful-base": 4}
    assert study["warnings"] == []
    assert study["status"] == "open"
    expected = choose({row.sample_id: row.subset for row in rows(COUNTS, "")}, 4, 9)
    with transaction() as session:
        items = session.scalars(select(StudyItem).order_by(StudyItem.position)).all()
        assert [item.sample_id for item in items] == expected
        assert all(item.response_a.startswith("system-a") for item in items)
        assert all(item.response_b.startswith("system-b") for item in items)
    assert service.http.get(f"/studies/{study['id']}", headers=service.viewer).json() == study
    assert service.http.get("/studies", headers=service.viewer).json()["data"] == [study]


def test_fewer_prompts_than_asked_are_all_used_with_a_warning(service: Service) -> None:
    study = service.study({"harmless-base": 2, "helpful-base": 9}, per_subset=5)
    assert study["subsets"] == {"harmless-base": 2, "helpful-base": 5}
    [warning] = study["warnings"]
    assert "per_subset = 5" in warning
    assert warning.endswith("in: harmless-base (2)")


def test_equal_answers_are_counted_in_a_warning(service: Service) -> None:
    same = rows({"x": 3}, "same")
    a, b = evaluated_job(same, name="a"), evaluated_job(same, name="b")
    body = {"name": "n", "a": a, "b": b}
    study = service.http.post("/studies", json=body, headers=service.researcher).json()
    assert any(warning.startswith("in 3 pairs") for warning in study["warnings"])


def _faults(service: Service, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = service.http.post("/studies", json={"name": "n", **body}, headers=service.researcher)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    faults: list[dict[str, Any]] = answer.json()["errors"]
    return faults


def test_jobs_that_cannot_be_compared_are_refused_with_their_place(service: Service) -> None:
    good = evaluated_job(rows(COUNTS, "a"), name="good")
    other_data = evaluated_job(rows(COUNTS, "b"), name="other", dataset="another set")
    running = evaluated_job(rows(COUNTS, "b"), name="running", status=JobStatus.RUNNING)
    no_overlap = evaluated_job(rows({"elsewhere": 3}, "b"), name="elsewhere")
    cases = [
        ({"a": "job_none", "b": good}, "/a", "there is no job"),
        ({"a": good, "b": good}, "/b", "the same job"),
        ({"a": running, "b": good}, "/a", "running, not succeeded"),
        ({"a": good, "b": job_without_evaluation()}, "/b", "was not evaluated"),
        ({"a": good, "b": other_data}, "/b", "different datasets"),
        ({"a": good, "b": no_overlap}, "/b", "no prompt in common"),
    ]
    for body, pointer, text in cases:
        [fault] = _faults(service, body)
        assert fault["pointer"] == pointer
        assert text in fault["detail"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("per_subset", 0), ("protocol", "sloppy"), ("seed", -1), ("criteria", ""), ("a", 3), ("colour", "red")],
)
def test_wrong_fields_are_named(service: Service, field: str, value: object) -> None:
    faults = _faults(service, {"a": "job_x", "b": "job_y", field: value})
    assert [fault["pointer"] for fault in faults] == [f"/{field}"]


def test_idempotency_key_creates_one_study(service: Service) -> None:
    a, b = evaluated_job(rows(COUNTS, "a"), name="a"), evaluated_job(rows(COUNTS, "b"), name="b")
    headers = {**service.researcher, "Idempotency-Key": "once"}
    body = {"name": "n", "a": a, "b": b}
    first, second = (service.http.post("/studies", json=body, headers=headers) for _ in range(2))
    assert first.json() == second.json()
    assert len(service.http.get("/studies", headers=service.viewer).json()["data"]) == 1


def test_invitation_shows_key_and_link_once(service: Service) -> None:
    study = service.study(COUNTS)
    asked = {"name": "Ada", "subsets": ["helpful-base"]}
    answer = service.http.post(f"/studies/{study['id']}/annotators", json=asked, headers=service.researcher)
    invited = answer.json()
    assert set(invited) == {"id", "object", "name", "subsets", "key", "link"}
    token = invited["link"].removeprefix("http://testserver/annotate/")
    assert len(token) >= 43  # 256 bits
    with transaction() as session:
        annotator = session.scalars(select(Annotator)).one()
        key = session.get_one(ApiKey, annotator.key_id)
        assert annotator.link_hash == hashlib.sha256(token.encode()).hexdigest()
        assert key.hash == hashlib.sha256(invited["key"].encode()).hexdigest()
    listed = service.http.get(f"/studies/{study['id']}/annotators", headers=service.viewer)
    assert invited["key"] not in listed.text
    assert token not in listed.text
    [rater] = listed.json()["data"]
    path = f"/studies/{study['id']}/annotators?limit=1&after={rater['id']}"
    assert service.http.get(path, headers=service.viewer).json() == {
        "object": "list", "data": [], "has_more": False,
    }  # fmt: skip
    assert (rater["done"], rater["total"], rater["revoked"]) == (0, 6, False)


def test_paper_protocol_gives_a_subset_to_one_rater(service: Service) -> None:
    study = service.study(COUNTS)
    service.rater(study, "Ada", ["harmless-base"])
    asked = {"name": "Bob", "subsets": ["helpful-base", "harmless-base"]}
    answer = service.http.post(f"/studies/{study['id']}/annotators", json=asked, headers=service.researcher)
    assert answer.status_code == 409
    assert answer.json()["code"] == "subset_taken"
    assert "'harmless-base' (rated by 'Ada')" in answer.json()["detail"]
    with transaction() as session:
        assert len(session.scalars(select(ApiKey).where(ApiKey.role == "annotator")).all()) == 1
    service.rater(study, "Bob", ["helpful-base"])


def test_rigorous_protocol_lets_raters_overlap(service: Service) -> None:
    study = service.study(COUNTS, protocol="rigorous")
    service.rater(study, "Ada")
    service.rater(study, "Bob")


def test_unknown_subset_is_named(service: Service) -> None:
    study = service.study(COUNTS)
    asked = {"name": "Ada", "subsets": ["helpful-base", "nowhere"]}
    answer = service.http.post(f"/studies/{study['id']}/annotators", json=asked, headers=service.researcher)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/subsets/1"


def test_unblinding_closes_the_study_once_and_is_on_the_audit_log(service: Service) -> None:
    study = service.study(COUNTS)
    rater = service.rater(study)
    open_pair = rater.pair()
    first, second = (
        service.http.post(f"/studies/{study['id']}/unblind", headers=service.researcher) for _ in range(2)
    )
    assert first.json()["status"] == "closed"
    assert first.json() == second.json()
    for refused in (rater.next(), rater.vote(open_pair["id"], "left"), rater.undo(open_pair["id"])):
        assert refused.status_code == 409
        assert refused.json()["code"] == "study_closed"
    asked = {"name": "Late", "subsets": ["helpful-base"]}
    invite = service.http.post(f"/studies/{study['id']}/annotators", json=asked, headers=service.researcher)
    assert invite.json()["code"] == "study_closed"
    with transaction() as session:
        actions = session.scalars(
            select(AuditEntry.action).where(AuditEntry.target == study["id"]).order_by(AuditEntry.id)
        ).all()
        requests = session.scalars(
            select(AuditEntry.request_id).where(AuditEntry.target == study["id"])
        ).all()
    assert actions == ["study.create", "study.invite", "study.unblind"]
    assert first.headers["x-request-id"] in requests
    assert None not in requests


def test_roles(service: Service) -> None:
    study = service.study(COUNTS)
    rater = service.rater(study)
    for_researchers = [
        ("POST", "/studies"),
        ("POST", f"/studies/{study['id']}/annotators"),
        ("GET", f"/studies/{study['id']}/results"),
        ("GET", f"/studies/{study['id']}/export.csv"),
        ("POST", f"/studies/{study['id']}/unblind"),
    ]
    for_viewers = [
        ("GET", "/studies"),
        ("GET", f"/studies/{study['id']}"),
        ("GET", f"/studies/{study['id']}/annotators"),
    ]
    for method, path in for_researchers:
        assert service.http.request(method, path, headers=service.viewer).status_code == 403, path
    for method, path in for_researchers + for_viewers:
        assert service.http.request(method, path, headers=rater.headers).status_code == 404, path
        assert service.http.request(method, path).status_code == 401, path
    answer = service.http.post(f"/studies/{study['id']}/assignments:next", headers=service.researcher)
    assert answer.status_code == 403
    other = service.study(COUNTS)
    assert (
        service.http.post(f"/studies/{other['id']}/assignments:next", headers=rater.headers).status_code
        == 404
    )


def test_the_study_page_asks_for_a_researchers_login(service: Service) -> None:
    study = service.study(COUNTS)
    path = f"/studies/{study['id']}/view"
    roles = {
        "viewer": service.viewer,
        "annotator": service.rater(study).headers,
        "researcher": service.researcher,
    }
    expected = {"viewer": 403, "annotator": 303, "researcher": 200}
    assert service.http.get(path, follow_redirects=False).headers["location"] == f"/login?next={path}"
    for role, headers in roles.items():
        with transaction() as session:
            key = find_usable_key(session, headers["Authorization"].removeprefix("Bearer "))
            assert key is not None
            cookies = {SESSION_COOKIE: start_web_session(session, key)}
        service.http.cookies = cookies
        assert service.http.get(path, follow_redirects=False).status_code == expected[role], role


def test_one_browser_is_a_researchers_and_a_raters(service: Service) -> None:
    study = service.study(COUNTS)
    link = service.rater(study).link
    own = {"Sec-Fetch-Site": "same-origin"}
    key = service.researcher["Authorization"].removeprefix("Bearer ")
    service.http.post("/login", data={"key": key}, headers=own, follow_redirects=False)
    following = f"/studies/{study['id']}/assignments:next"
    assert service.http.post(following, headers=own).status_code == 403  # a researcher alone

    assert service.http.get(link).status_code == 200
    assert set(service.http.cookies) == {SESSION_COOKIE, RATER_COOKIE}
    assert service.http.get("/jobs").status_code == 200
    assert service.http.get(f"/studies/{study['id']}/view", follow_redirects=False).status_code == 200
    assert service.http.get("/annotate").status_code == 200
    pair = service.http.post(following, headers=own)
    assert pair.status_code == 200
    voted = service.http.post(f"/assignments/{pair.json()['id']}", json={"choice": "tie"}, headers=own)
    assert voted.status_code == 200
    for path in (following, f"/studies/{study['id']}/unblind"):
        refused = service.http.post(path, headers={"Sec-Fetch-Site": "cross-site"})
        assert (refused.status_code, refused.json()["code"]) == (403, "cross_site_request")

    service.http.post("/logout", headers=own, follow_redirects=False)
    assert set(service.http.cookies) == {RATER_COOKIE}
    for path in ("/jobs", "/keys", f"/studies/{study['id']}/results"):
        answer = service.http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert service.http.post(following, headers=own).status_code == 200
