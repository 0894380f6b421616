"""Skips, flags of harm, pairs held ahead, and what can be taken back from another device."""

from __future__ import annotations

import csv
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from app.db.models import Assignment, Skip, Vote
from app.db.session import transaction
from app.studies.assignments import OPEN_AT_MOST
from tests.integration.studies.test_rating import let_lease_run_out
from tests.study_world import Rater, Service


def exclusions(service: Service, rater: Rater) -> dict[str, int]:
    answer = service.http.get(f"/studies/{rater.study}/results", headers=service.researcher)
    found: dict[str, int] = answer.json()["exclusions"]
    return {name: found[name] for name in ("undone", "unvoted", "skipped")}


def export(service: Service, rater: Rater) -> list[dict[str, str]]:
    answer = service.http.get(f"/studies/{rater.study}/export.csv", headers=service.researcher)
    return list(csv.DictReader(io.StringIO(answer.text)))


def test_a_skipped_pair_does_not_come_again_until_the_skip_is_undone(service: Service) -> None:
    rater = service.rater(service.study({"x": 3}))
    first = rater.pair()
    for _ in range(2):  # twice is as once
        answer = rater.skip(first["id"], "too disturbing")
        assert answer.status_code == 200
        assert answer.json() == {"id": first["id"], "reason": "too disturbing"}
    second = rater.pair()
    assert (second["id"] != first["id"], second["done"], second["total"]) == (True, 1, 3)
    assert exclusions(service, rater) == {"undone": 0, "unvoted": 1, "skipped": 1}
    assert rater.undo(first["id"]).json() == first
    assert rater.pair() == first
    assert exclusions(service, rater) == {"undone": 0, "unvoted": 2, "skipped": 0}
    for _ in range(3):
        rater.skip(rater.pair()["id"], "cannot tell")
    assert rater.next().status_code == 204
    with transaction() as session:
        assert session.scalar(select(func.count()).select_from(Skip)) == 4  # the one undone stays
        assert session.scalar(select(func.count()).select_from(Vote)) == 0


def test_a_skip_and_a_vote_exclude_each_other(service: Service) -> None:
    rater = service.rater(service.study({"x": 2}))
    skipped = rater.pair()["id"]
    rater.skip(skipped, "why")
    for refused in (rater.vote(skipped, "left"), rater.skip(skipped, "other"),
                    rater.skip(skipped, "why", harmful=True)):  # fmt: skip
        assert (refused.status_code, refused.json()["code"]) == (409, "skip_stands")
    voted = rater.pair()["id"]
    rater.vote(voted, "left")
    refused = rater.skip(voted, "why")
    assert (refused.status_code, refused.json()["code"]) == (409, "vote_stands")
    assert exclusions(service, rater) == {"undone": 0, "unvoted": 0, "skipped": 1}


def test_flags_and_times_reach_the_researcher(service: Service) -> None:
    rater = service.rater(service.study({"x": 3}))
    flagged = rater.pair()
    assert rater.vote(flagged["id"], "tie", harmful=True, seconds=7.5).status_code == 200
    assert rater.vote(flagged["id"], "tie", harmful=True, seconds=9).status_code == 200  # the same vote
    assert rater.vote(flagged["id"], "tie").json()["code"] == "vote_stands"
    plain = rater.pair()
    rater.vote(plain["id"], "left", comment="fine")
    skipped = rater.pair()
    rater.skip(skipped["id"], "=too much", harmful=True)
    table = export(service, rater)
    found = [
        (row["choice"], row["winner"], row["harmful"], row["seconds"], row["comment"], row["skip_reason"])
        for row in table
    ]
    assert sorted(found) == [
        ("left", "a" if plain["left"].startswith("system-a") else "b", "no", "", "fine", ""),
        ("skip", "", "yes", "", "", "'=too much"),
        ("tie", "tie", "yes", "7.5", "", ""),
    ]
    (row,) = (row for row in table if row["choice"] == "skip")
    assert row["prompt"].startswith("user: " + skipped["prompt"][0]["content"])


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "x" * 501}, {"reason": "x", "choice": "tie"},
                                  {"reason": "\x00"}, {"reason": "x", "harmful": "perhaps"}])  # fmt: skip
def test_wrong_skips_are_refused(service: Service, body: dict[str, object]) -> None:
    rater = service.rater(service.study({"x": 1}))
    path = f"/assignments/{rater.pair()['id']}/skip"
    answer = service.http.post(path, json=body, headers=rater.headers)
    assert answer.status_code == 422, answer.text


def test_pairs_are_held_ahead_in_one_order_and_not_without_end(service: Service) -> None:
    rater = service.rater(service.study({"x": 9}))
    held = [rater.pair()]
    while len(held) < OPEN_AT_MOST:
        held.append(rater.pair(after=held[-1]["id"]))
    assert len({pair["id"] for pair in held}) == OPEN_AT_MOST
    assert {tuple(pair) for pair in held} == {("id", "prompt", "left", "right", "criteria", "done", "total")}
    refused = rater.next(after=held[-1]["id"])
    assert (refused.status_code, refused.json()["code"]) == (409, "pairs_open")
    # Another tab or device: the first open pair, and the same ones after it.
    assert rater.pair() == held[0]
    assert [rater.pair(after=one["id"]) for one in held[:-1]] == held[1:]
    rater.vote(held[0]["id"], "left")
    further = rater.pair(after=held[-1]["id"])
    assert further["done"] == 1
    assert further["id"] not in {pair["id"] for pair in held}
    assert rater.pair()["id"] == held[1]["id"]
    opened = rater.undo(held[0]["id"]).json()
    assert rater.pair() == opened == held[0]
    assert rater.pair(after=held[0]["id"])["id"] == held[1]["id"]


def test_holding_ahead_ends_where_the_pairs_end(service: Service) -> None:
    study = service.study({"x": 2}, protocol="rigorous")
    rater, other = service.rater(study), service.rater(study, "Bob")
    first = rater.pair()
    second = rater.pair(after=first["id"])
    assert rater.next(after=second["id"]).status_code == 204
    assert rater.next(after=other.pair()["id"]).status_code == 404
    assert rater.next(after="asg_none").status_code == 404
    rater.vote(second["id"], "left")
    assert rater.next(after=second["id"]).status_code == 204
    assert rater.pair()["id"] == first["id"]


def test_asking_keeps_the_leases_of_all_pairs_held(service: Service) -> None:
    rater = service.rater(service.study({"x": 3}))
    first = rater.pair()
    second = rater.pair(after=first["id"])
    let_lease_run_out(second["id"])
    rater.pair()
    rater.vote(second["id"], "left")
    with transaction() as session:
        assert session.scalars(select(Vote.late)).all() == [False]


def test_many_tabs_that_read_ahead_hold_the_same_pairs(service: Service) -> None:
    rater = service.rater(service.study({"x": 20}))

    def read_ahead(_: int) -> list[str]:
        ids = [rater.pair()["id"]]
        while len(ids) < OPEN_AT_MOST:
            ids.append(rater.pair(after=ids[-1])["id"])
        return ids

    with ThreadPoolExecutor(6) as tabs:
        held = list(tabs.map(read_ahead, range(6)))
    assert all(ids == held[0] for ids in held)
    with transaction() as session:
        assert session.scalar(select(func.count()).select_from(Assignment)) == OPEN_AT_MOST


def test_the_last_answer_is_found_from_any_device(service: Service) -> None:
    rater = service.rater(service.study({"x": 3}))
    assert rater.last().status_code == 204
    first = rater.pair()["id"]
    rater.vote(first, "left")
    second = rater.pair()["id"]
    rater.skip(second, "why")
    assert rater.last().json() == {"id": second}
    assert rater.undo(second).status_code == 200
    assert rater.last().json() == {"id": first}
    rater.vote(second, "tie")
    assert rater.last().json() == {"id": second}
    rater.undo(second)
    rater.undo(first)
    assert rater.last().status_code == 204
    other = service.rater(service.study({"x": 1}), "Bob")
    path = f"/studies/{rater.study}/assignments:last"
    assert service.http.get(path, headers=other.headers).status_code == 404
    assert service.http.get(path, headers=service.researcher).status_code == 403
