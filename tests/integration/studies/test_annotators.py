"""A rater's link is renewed and their access revoked by researchers; what they voted stays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from app.cookies import RATER_COOKIE
from app.db.models import Annotator, AuditEntry, Study
from app.db.session import transaction
from app.studies.places import exclude
from tests.study_world import Rater, Service
from tests.worker_world import until

COUNTS = {"harmless-base": 2, "helpful-base": 2}


def path_of(rater: Rater) -> str:
    return f"/studies/{rater.study}/annotators/{rater.id}"


def actions(study: str) -> list[tuple[str, str]]:
    with transaction() as session:
        rows = session.scalars(
            sa.select(AuditEntry).where(AuditEntry.target == study).order_by(AuditEntry.id)
        )
        return [(row.action, row.detail.get("annotator", "")) for row in rows]


def test_a_new_link_ends_the_old_one_and_its_browsers(service: Service) -> None:
    rater = service.rater(service.study(COUNTS))
    assert rater.vote(rater.pair()["id"], "left").status_code == 200
    service.http.get(rater.link)
    assert service.http.get("/annotate").status_code == 200

    once = {**service.researcher, "Idempotency-Key": "renew-1"}
    answer = service.http.post(path_of(rater) + "/link", headers=once)
    assert answer.status_code == 201
    renewed = answer.json()
    assert set(renewed) == {"id", "object", "name", "link"}
    assert (renewed["id"], renewed["name"]) == (rater.id, "Ada")
    assert service.http.post(path_of(rater) + "/link", headers=once).json() == renewed

    assert service.http.get("/annotate").status_code == 401
    assert service.http.get(rater.link).status_code == 404
    assert service.http.get(renewed["link"]).status_code == 200
    assert RATER_COOKIE in service.http.cookies
    assert service.http.get("/annotate").status_code == 200
    assert rater.pair()["done"] == 1  # the key and the votes stay
    assert actions(rater.study)[-1] == ("study.renew_link", rater.id)
    assert renewed["link"] not in str(actions(rater.study))


def test_a_revoked_rater_is_out_and_their_votes_stay(service: Service) -> None:
    study = service.study(COUNTS)
    rater = service.rater(study)
    assert rater.vote(rater.pair()["id"], "left").status_code == 200
    for _ in range(2):  # twice is as once
        answer = service.http.delete(path_of(rater), headers=service.researcher)
        assert answer.status_code == 200
        shown = answer.json()
        assert (shown["id"], shown["revoked"], shown["done"]) == (rater.id, True, 1)
    assert rater.next().status_code == 401
    assert service.http.get(rater.link).status_code == 404
    refused = service.http.post(path_of(rater) + "/link", headers=service.researcher)
    assert (refused.status_code, refused.json()["code"]) == (409, "annotator_revoked")
    assert [action for action, _ in actions(study["id"])].count("study.revoke") == 1
    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    assert found["total"]["n"] == 1
    assert service.rater(study, "Grace").pair()["total"] == 3


@pytest.mark.parametrize(("method", "suffix"), [("POST", "/link"), ("DELETE", "")])
def test_who_may_and_of_which_study(service: Service, method: str, suffix: str) -> None:
    rater, other = service.rater(service.study(COUNTS)), service.study(COUNTS)
    asked = path_of(rater) + suffix
    for headers, status in [({}, 401), (service.viewer, 403), (rater.headers, 404)]:
        assert service.http.request(method, asked, headers=headers).status_code == status
    for wrong in (
        f"/studies/{other['id']}/annotators/{rater.id}",
        f"/studies/{rater.study}/annotators/ann_x",
    ):
        assert service.http.request(method, wrong + suffix, headers=service.researcher).status_code == 404
    assert rater.next().status_code == 200


def test_a_closed_study_gives_no_new_link(service: Service) -> None:
    rater = service.rater(service.study(COUNTS))
    service.http.post(f"/studies/{rater.study}/unblind", headers=service.researcher)
    refused = service.http.post(path_of(rater) + "/link", headers=service.researcher)
    assert (refused.status_code, refused.json()["code"]) == (409, "study_closed")
    assert service.http.delete(path_of(rater), headers=service.researcher).status_code == 200


def somebody_waits_for_a_lock() -> bool:
    waiting = "datname = current_database() AND wait_event_type = 'Lock'"
    with transaction() as session:
        return bool(session.scalar(sa.text(f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}")))


def test_a_vote_on_its_way_and_the_removal_of_its_rater_wait_for_each_other_in_one_order(
    service: Service,
) -> None:
    rater = service.rater(service.study(COUNTS))
    pair = rater.pair()["id"]
    with ThreadPoolExecutor(1) as pool, transaction() as session:
        session.get_one(Study, rater.study, with_for_update=True)
        voting = pool.submit(rater.vote, pair, "left")
        until(somebody_waits_for_a_lock)
        exclude(session, session.get_one(Annotator, rater.id))
        session.commit()
        assert voting.result(20).status_code == 200
