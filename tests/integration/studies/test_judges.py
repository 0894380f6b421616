"""A model as a rater of its own, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.study_world import Service

Json = dict[str, Any]


def send(service: Service, study: Json, judge: str, verdicts: list[tuple[int, str, str]]) -> Any:
    body = {"judge": judge, "verdicts": [{"pair": p, "a_first": a, "b_first": b} for p, a, b in verdicts]}
    return service.http.post(f"/studies/{study['id']}/verdicts", json=body, headers=service.researcher)


def pairs(service: Service, study: Json, **params: int) -> Json:
    answer = service.http.get(f"/studies/{study['id']}/pairs", params=params, headers=service.researcher)
    assert answer.status_code == 200
    found: Json = answer.json()
    return found


def test_a_judge_stands_beside_people_and_votes_for_nobody(service: Service) -> None:
    study = service.study({"x": 6})
    rater = service.rater(study)
    prefers = {0: "a", 1: "a", 2: "b", 3: "b", 4: "tie"}  # by the prompt's number; the sixth is unrated
    for _ in range(6):
        pair = rater.pair()
        number = int(pair["prompt"][0]["content"].split()[1])
        if number not in prefers:
            rater.skip(pair["id"], "unclear")
            continue
        side = "left" if f"system-{prefers[number]} says" in pair["left"] else "right"
        rater.vote(pair["id"], "tie" if prefers[number] == "tie" else side)
    listed = pairs(service, study)["data"]
    assert [pair["id"] for pair in listed] == [1, 2, 3, 4, 5, 6]
    assert all("system-b says" in pair["response_b"] for pair in listed)
    says = {0: ("a", "a"), 1: ("b", "b"), 2: ("b", "b"), 3: ("a", "b"), 4: ("tie", "tie"), 5: ("a", "a")}
    verdicts = [(pair["id"], *says[int(pair["sample_id"][-4:])]) for pair in listed]
    answer = send(service, study, "acme/judge", verdicts)
    assert answer.json() == {"object": "study.judge", "judge": "acme/judge", "pairs": 6}
    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    assert found["total"]["n"] == 5
    (judge,) = found["judges"]
    assert (judge["win"]["count"], judge["tie"]["count"], judge["lose"]["count"]) == (2, 2, 2)
    assert (judge["consistent"]["count"], judge["consistent"]["n"]) == (5, 6)
    # People: a a b b tie; the judge: a b b tie tie.
    assert (judge["as_people"]["count"], judge["as_people"]["n"]) == (3, 5)
    assert judge["cohen_kappa"] == pytest.approx((3 / 5 - 8 / 25) / (1 - 8 / 25))


def test_a_later_verdict_takes_the_place_of_an_earlier_one(service: Service) -> None:
    study = service.study({"x": 2})
    send(service, study, "m", [(1, "a", "a"), (2, "a", "a")])
    assert send(service, study, "m", [(2, "b", "b")]).json()["pairs"] == 2
    send(service, study, "other", [(1, "tie", "tie")])
    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    assert [(judge["name"], judge["pairs"], judge["lose"]["count"]) for judge in found["judges"]] == [
        ("m", 2, 1),
        ("other", 1, 0),
    ]
    assert found["judges"][0]["as_people"]["share"] is None


def test_pairs_are_walked_through(service: Service) -> None:
    study = service.study({"x": 5})
    first = pairs(service, study, limit=3)
    rest = pairs(service, study, limit=3, after=first["data"][-1]["id"])
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert [pair["id"] for pair in first["data"] + rest["data"]] == [1, 2, 3, 4, 5]


def test_what_no_judge_may_say_is_refused(service: Service) -> None:
    study = service.study({"x": 2})
    answer = send(service, study, "m", [(1, "a", "a"), (3, "a", "a")])
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/verdicts/1/pair"
    assert send(service, study, "m", [(1, "left", "a")]).status_code == 422
    assert send(service, study, "m", []).status_code == 422
    rater = service.rater(study)
    path = f"/studies/{study['id']}/pairs"
    assert service.http.get(path, headers=rater.headers).status_code == 404
    assert service.http.get(path, headers=service.viewer).status_code == 403
    hidden = service.study({"x": 2}, results="after_unblinding")
    assert send(service, hidden, "m", [(1, "a", "a")]).json()["code"] == "results_hidden"
