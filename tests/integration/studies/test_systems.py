"""Studies of more than two systems, and what a dry run says beforehand."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import pytest
from sqlalchemy import func, select

from app.db.models import Study
from app.db.session import transaction
from app.studies.power import pairs_needed, power
from tests.study_world import Rater, Service, evaluated_job, rows

Json = dict[str, Any]
COUNTS = {"harmless-base": 12, "helpful-base": 9}
BEST_FIRST = "qrst"


def jobs(letters: str = BEST_FIRST, counts: dict[str, int] = COUNTS) -> list[str]:
    return [evaluated_job(rows(counts, f"system-{letter}"), name=letter) for letter in letters]


def post(service: Service, query: str = "", **fields: Any) -> Any:
    return service.http.post(f"/studies{query}", json={"name": "n", **fields}, headers=service.researcher)


def letter(text: str) -> str:
    return text.split(maxsplit=1)[0].removeprefix("system-")


def rate_by_rank(rater: Rater) -> Counter[tuple[str, str]]:
    """Choose the system that comes first in ``BEST_FIRST``; (winner, loser) by the texts alone."""
    beaten: Counter[tuple[str, str]] = Counter()
    while (answer := rater.next()).status_code == 200:
        pair = answer.json()
        shown = {side: letter(pair[side]) for side in ("left", "right")}
        choice = min(shown, key=lambda side: BEST_FIRST.index(shown[side]))
        beaten[shown[choice], shown["right" if choice == "left" else "left"]] += 1
        rater.vote(pair["id"], choice)
    return beaten


def test_four_systems_meet_equally_often_and_are_ranked(service: Service) -> None:
    systems = jobs()
    study = post(service, systems=systems, pairs_per_prompt=2).json()
    assert (study["systems"], study["a"], study["b"]) == (systems, None, None)
    assert study["subsets"] == {"harmless-base": 24, "helpful-base": 18}
    beaten = rate_by_rank(service.rater(study))
    names = dict(zip(systems, BEST_FIRST, strict=True))
    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    assert [(pair["a"], pair["b"]) for pair in found["pairs"]] == list(combinations(systems, 2))
    for pair in found["pairs"]:
        wins, losses = pair["total"]["win"]["count"], pair["total"]["lose"]["count"]
        assert (wins, losses) == (beaten[names[pair["a"]], names[pair["b"]]], 0)
        assert pair["subsets"]["harmless-base"]["n"] == pair["harmless"]["n"] == 4
        assert pair["subsets"]["helpful-base"]["n"] == 3
    assert found["total"] is found["subsets"] is None
    for aspect in ("harmless", "helpful", "total"):
        ranking = found["strengths"][aspect]
        assert [names[one["system"]] for one in ranking] == list(BEST_FIRST)
        assert all(one["interval"][0] <= one["strength"] <= one["interval"][1] for one in ranking)
    assert sum(one["votes"] for one in found["strengths"]["total"]) == 2 * 42


def test_each_of_three_systems_stands_on_both_sides_equally_often(service: Service) -> None:
    study = post(service, systems=jobs("qrs", {"x": 30}), protocol="rigorous").json()
    rater = service.rater(study)
    lead: Counter[str] = Counter()
    for _ in range(30):
        pair = rater.pair()
        lead[letter(pair["left"])] += 1
        lead[letter(pair["right"])] -= 1
        assert max(map(abs, lead.values())) <= 2
        rater.vote(pair["id"], "tie")


def test_two_systems_are_a_and_b(service: Service) -> None:
    first, second = jobs("qr")
    study = post(service, systems=[first, second]).json()
    assert (study["a"], study["b"], study["systems"]) == (first, second, [first, second])
    same = post(service, a=first, b=second).json()
    assert same["manifest_sha256"] == study["manifest_sha256"]
    rate_by_rank(service.rater(study))
    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    assert found["total"] == found["pairs"][0]["total"]
    assert found["strengths"] == {}


def test_systems_are_named_in_one_way(service: Service) -> None:
    first, second, third = jobs("qrs")
    cases = [
        ({}, "/a"),
        ({"a": first}, "/b"),
        ({"b": first}, "/a"),
        ({"a": first, "b": second, "systems": [first, second]}, "/systems"),
        ({"systems": [first]}, "/systems"),
        ({"systems": [first, second, third, second]}, "/systems/3"),
        ({"systems": [first, second, "job_none"]}, "/systems/2"),
        ({"systems": [first, second, third], "pairs_per_prompt": 4}, "/pairs_per_prompt"),
    ]
    for fields, pointer in cases:
        answer = post(service, **fields)
        assert answer.status_code == 422, fields
        assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


def test_a_dry_run_tells_the_power_and_makes_nothing(service: Service) -> None:
    systems = jobs("qrs", {"x": 90, "y": 30})
    fields = {"systems": systems, "protocol": "rigorous", "raters_per_pair": 3, "per_subset": 60}
    answer = post(service, "?dry_run=true&win_rate=0.8&ties=0.25", **fields)
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert (plan["object"], plan["systems"]) == ("study.plan", systems)
    assert (plan["subsets"], plan["votes"]) == ({"x": 60, "y": 30}, 270)
    told = plan["power"]
    assert told["pairs_needed"] == pairs_needed(0.8, 0.25)
    assert (told["total"]["pairs"], told["subsets"]["x"]["pairs"], told["subsets"]["y"]["pairs"]) == (
        30,
        20,
        10,
    )
    assert told["subsets"]["x"]["power"] == pytest.approx(power(20, 0.8, 0.25))
    assert power(30, told["total"]["win_rate"], 0.25) >= 0.8
    with transaction() as session:
        assert session.scalar(select(func.count()).select_from(Study)) == 0
    refused = post(service, "?dry_run=true", a=systems[0], b="job_none")
    assert [fault["pointer"] for fault in refused.json()["errors"]] == ["/b"]
    assert post(service, "?dry_run=true&win_rate=0.5", **fields).status_code == 422


def test_the_page_of_many_systems(service: Service) -> None:
    study = post(service, systems=jobs("qrs")).json()
    rate_by_rank(service.rater(study))
    key = service.researcher["Authorization"].removeprefix("Bearer ")
    own = {"Sec-Fetch-Site": "same-origin"}
    service.http.post("/login", data={"key": key}, headers=own, follow_redirects=False)
    page = service.http.get(f"/studies/{study['id']}/view").text
    for name in ("a against b", "a against c", "b against c"):
        assert f'<th scope="row">{name}</th>' in page
