"""The protocol "rigorous": raters per pair, leases that run out, repeats, gold, tutorial, removed raters."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select, text

from app.db.models import Assignment, AuditEntry, Purpose, StudyItem, StudyPlace, Vote
from app.db.session import transaction
from tests.study_world import Rater, Service

Json = dict[str, Any]


def gold(size: int) -> list[Json]:
    return [
        {"prompt": f"Known {number}", "better": f"right {number}", "worse": f"wrong {number}"}
        for number in range(size)
    ]


def rate(rater: Rater, choose: random.Random | str = "tie", at_most: int = 10_000) -> list[Json]:
    """Vote until nothing is left; the pairs as they came."""
    pairs: list[Json] = []
    while len(pairs) < at_most and (answer := rater.next()).status_code == 200:
        pair = answer.json()
        pairs.append(pair)
        choice = choose if isinstance(choose, str) else choose.choice(["left", "tie", "right"])
        assert rater.vote(pair["id"], choice).status_code == 200
    return pairs


def asked(pair: Json) -> str:
    return str(pair["prompt"][0]["content"])


def let_leases_run_out(rater: Rater) -> None:
    with transaction() as session:
        session.execute(
            text("UPDATE assignments SET lease_until = now() - interval '1 second' WHERE annotator_id = :id"),
            {"id": rater.id},
        )


def results(service: Service, study: Json) -> Json:
    found: Json = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    return found


def held_by_the_books() -> dict[str, tuple[int, int]]:
    """Of each pair: the places that are counted, and the assignments that hold one."""
    with transaction() as session:
        places = dict(session.execute(select(StudyPlace.item_id, StudyPlace.held)).all())
        holding = session.scalars(
            select(Assignment.item_id).where(
                Assignment.purpose == Purpose.PAIR, Assignment.standing.in_(("open", "voted"))
            )
        )
        counts = Counter(holding)
    return {item: (held, counts[item]) for item, held in places.items()}


def test_a_pair_that_has_its_raters_is_dealt_to_nobody_else(service: Service) -> None:
    study = service.study({"x": 6, "y": 4}, protocol="rigorous", raters_per_pair=2)
    raters = [service.rater(study, name) for name in ("Ada", "Bob", "Eve")]
    dice = random.Random(3)
    rated: Counter[str] = Counter()
    by_rater: dict[str, list[str]] = defaultdict(list)
    waiting = list(raters)
    while waiting:
        rater = dice.choice(waiting)
        pairs = rate(rater, at_most=1)
        if not pairs:
            waiting.remove(rater)
        for pair in pairs:
            rated[asked(pair)] += 1
            by_rater[rater.id].append(asked(pair))
    assert set(rated.values()) == {2}
    assert len(rated) == 10
    assert all(len(set(pairs)) == len(pairs) for pairs in by_rater.values())
    assert results(service, study)["total"]["n"] == 20
    for rater in service.http.get(f"/studies/{study['id']}/annotators", headers=service.viewer).json()[
        "data"
    ]:
        assert rater["done"] == rater["total"] == len(by_rater[rater["id"]])


def test_raters_at_once_never_take_a_place_twice(service: Service) -> None:
    study = service.study({"x": 12}, protocol="rigorous", raters_per_pair=2)
    raters = [service.rater(study, f"rater {number}") for number in range(8)]
    with ThreadPoolExecutor(8) as at_once:
        done = list(at_once.map(rate, raters))
    assert Counter(asked(pair) for pairs in done for pair in pairs) == dict.fromkeys(
        (f"Question {number} of x?" for number in range(12)), 2
    )
    assert set(held_by_the_books().values()) == {(2, 2)}


def test_a_lease_that_ran_out_gives_the_pair_to_another(service: Service) -> None:
    study = service.study({"x": 1}, protocol="rigorous", raters_per_pair=1)
    ada, bob = service.rater(study, "Ada"), service.rater(study, "Bob")
    pair = ada.pair()
    assert bob.next().status_code == 204
    let_leases_run_out(ada)
    theirs = bob.pair()
    assert asked(theirs) == asked(pair)
    assert theirs["id"] != pair["id"]
    assert ada.next().status_code == 204  # it has its rater
    bob.vote(theirs["id"], "left")
    assert ada.vote(pair["id"], "right").status_code == 200  # and yet nothing that was judged is lost
    found = results(service, study)
    assert found["total"]["n"] == 2
    assert {one["name"]: one["late"] for one in found["raters"]} == {"Ada": 1, "Bob": 0}
    assert found["exclusions"]["unvoted"] == 0
    assert set(held_by_the_books().values()) == {(2, 2)}


def test_who_comes_back_first_goes_on_with_their_pair(service: Service) -> None:
    study = service.study({"x": 2}, protocol="rigorous", raters_per_pair=1)
    ada, bob = service.rater(study, "Ada"), service.rater(study, "Bob")
    pair = ada.pair()
    let_leases_run_out(ada)
    other = bob.pair()  # Ada's place is let go now, and Bob may have got it or the other one
    again = ada.pair()
    assert asked(again) != asked(other)
    assert (again["id"] == pair["id"]) == (asked(again) == asked(pair))
    assert all(held == holding == 1 for held, holding in held_by_the_books().values())


def test_a_check_waits_for_its_rater_however_long(service: Service) -> None:
    """A repeat, a gold pair and the tutorial are no other rater's: whoever leaves one finds it again."""
    study = service.study(
        {"x": 8},
        protocol="rigorous",
        raters_per_pair=2,
        repeats=0.5,
        gold=gold(5),
        gold_share=0.5,
        tutorial=1,
    )
    ada, bob = service.rater(study, "Ada"), service.rater(study, "Bob")
    seen = set()
    while (answer := ada.next()).status_code == 200:
        pair = answer.json()
        let_leases_run_out(ada)
        with transaction() as session:
            purpose = session.get_one(Assignment, pair["id"]).purpose
        if purpose is not Purpose.PAIR:
            bob.pair()
            assert ada.pair() == pair
        seen.add(purpose)
        ada.vote(pair["id"], "tie")
    assert seen == set(Purpose)
    assert all(held == holding for held, holding in held_by_the_books().values())
    rate(bob)
    assert results(service, study)["total"]["n"] == 16


def test_repeats_come_later_with_the_sides_swapped_and_do_not_count(service: Service) -> None:
    study = service.study({"x": 40}, protocol="rigorous", raters_per_pair=1, repeats=0.25)
    rater = service.rater(study)
    assert rater.pair()["total"] == 50
    pairs = rate(rater, "left")
    assert [pair["done"] for pair in pairs] == list(range(50))
    assert {pair["total"] for pair in pairs} == {50}
    shown: dict[str, list[tuple[int, Json]]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        shown[asked(pair)].append((place, pair))
    twice = [one for one in shown.values() if len(one) == 2]
    assert (len(shown), len(twice)) == (40, 10)
    for (first, before), (second, after) in twice:
        assert second - first > 10
        assert (before["left"], before["right"]) == (after["right"], after["left"])
    assert results(service, study)["total"]["n"] == 40


def test_gold_is_hidden_at_its_share_and_does_not_count(service: Service) -> None:
    study = service.study(
        {"x": 30}, protocol="rigorous", raters_per_pair=1, gold=gold(12), gold_share=0.2, tutorial=2
    )
    assert (study["gold"], study["tutorial"], study["subsets"]) == (10, 2, {"x": 30})
    rater = service.rater(study)
    pairs = rate(rater, "left")
    hidden = [pair for pair in pairs[2:] if asked(pair).startswith("Known")]
    assert (len(pairs), len(hidden)) == (38, 6)
    known = Counter(asked(pair) for pair in pairs if asked(pair).startswith("Known"))
    assert set(known.values()) == {1}
    better_left = sum(pair["left"].startswith("right") for pair in pairs if asked(pair).startswith("Known"))
    assert 3 <= better_left <= 5  # tutorial and gold are balanced each for itself
    found = results(service, study)
    assert found["total"]["n"] == 30
    assert found["raters"][0]["votes"] == 30


def test_the_tutorial_comes_first_and_says_what_was_expected(service: Service) -> None:
    study = service.study({"x": 3}, protocol="rigorous", gold=gold(5))
    assert study["tutorial"] == 5
    rater = service.rater(study)
    for number in range(5):
        pair = rater.pair()
        assert pair["tutorial"] is True
        assert (pair["done"], pair["total"]) == (number, 8)
        better = "left" if pair["left"].startswith("right") else "right"
        choice = ("left", "tie", "right")[number % 3]
        expected = {"agreed": choice == better, "better": better}
        for _ in range(2):  # the same vote again is the same vote
            answer = rater.vote(pair["id"], choice).json()
            assert answer == {"id": pair["id"], "choice": choice, "feedback": expected}
    pair = rater.pair()
    assert "tutorial" not in pair
    assert rater.vote(pair["id"], "left").json() == {"id": pair["id"], "choice": "left"}


def test_nothing_tells_gold_and_repeats_from_other_pairs(service: Service) -> None:
    study = service.study(
        {"x": 40},
        protocol="rigorous",
        raters_per_pair=1,
        repeats=0.2,
        gold=gold(8),
        gold_share=0.2,
        tutorial=0,
    )
    rater = service.rater(study)
    shapes: dict[str, set[Any]] = defaultdict(set)
    totals = set()
    while (answer := rater.next()).status_code == 200:
        pair = answer.json()
        with transaction() as session:
            purpose = session.get_one(Assignment, pair["id"]).purpose.value
        voted = rater.vote(pair["id"], "tie")
        totals.add(pair["total"])
        names = [
            (name, len(value)) for one in (answer, voted) for name, value in one.headers.items()
            if name != "content-length"
        ]  # fmt: skip
        rest = len(answer.content) - len(str(pair["done"])) - len(answer.text.split('"criteria"')[0])
        shapes[purpose].add((tuple(pair), tuple(names), len(pair["id"]), rest, tuple(voted.json())))
    assert set(shapes) == {"pair", "repeat", "gold"}
    assert shapes["pair"] == shapes["repeat"] == shapes["gold"]
    assert len(shapes["pair"]) == 1
    assert totals == {40 + 8 + 8}


def test_sides_of_counted_pairs_stay_balanced_among_checks(service: Service) -> None:
    study = service.study(
        {"x": 15, "y": 14}, protocol="rigorous", repeats=0.3, gold=gold(9), gold_share=0.3, tutorial=2
    )
    for name in ("Ada", "Bob"):
        rate(service.rater(study, name))
    with transaction() as session:
        rows = session.execute(
            select(Assignment.annotator_id, StudyItem.subset, Assignment.a_is_left)
            .join(StudyItem, StudyItem.id == Assignment.item_id)
            .where(Assignment.purpose == Purpose.PAIR)
        ).all()
    lead: Counter[tuple[str, str]] = Counter()
    for annotator, subset, a_is_left in rows:
        lead[annotator, subset] += 1 if a_is_left else -1
    assert len(lead) == 4
    assert set(map(abs, lead.values())) <= {0, 1}


def test_a_rater_is_removed_with_their_votes(service: Service) -> None:
    study = service.study({"x": 5}, protocol="rigorous", raters_per_pair=1, repeats=0.2)
    ada = service.rater(study, "Ada")
    rate(ada, "left", at_most=3)
    opened = ada.pair()
    path = f"/studies/{study['id']}/annotators/{ada.id}"
    for _ in range(2):  # twice is as once
        answer = service.http.delete(path, params={"votes": "exclude"}, headers=service.researcher)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["revoked"], answer.json()["excluded"]) == (True, True)
    assert ada.vote(opened["id"], "left").status_code == 401
    found = results(service, study)
    assert (found["total"]["n"], found["raters"]) == (0, [])
    with transaction() as session:
        kept = len(session.scalars(select(Vote.id)).all())
        counted = session.scalars(
            select(Assignment.id)
            .join(Vote, Vote.assignment_id == Assignment.id)
            .where(Assignment.purpose == Purpose.PAIR)
        ).all()
        actions = session.scalars(
            select(AuditEntry.action).where(AuditEntry.target == study["id"]).order_by(AuditEntry.id)
        ).all()
    assert kept == 3
    assert found["exclusions"]["removed_raters"] == 1
    assert found["exclusions"]["removed_votes"] == len(counted)
    assert actions == ["study.create", "study.invite", "study.revoke", "study.exclude"]
    assert {held for held, _ in held_by_the_books().values()} == {0}
    bob = service.rater(study, "Bob")
    assert len({asked(pair) for pair in rate(bob)}) == 5  # every pair is free again
    assert results(service, study)["total"]["n"] == 5
    table = service.http.get(f"/studies/{study['id']}/export.csv", headers=service.researcher).text
    assert table.count(",pair,yes,") == 5
    assert table.count(",pair,no,") == len(counted)


def test_under_the_paper_s_protocol_a_removed_rater_s_subset_is_rated_anew(service: Service) -> None:
    study = service.study({"x": 4})
    ada = service.rater(study, "Ada")
    rate(ada, "left", at_most=3)
    path = f"/studies/{study['id']}/annotators/{ada.id}"
    service.http.delete(path, headers=service.researcher)  # first the access alone, then the votes
    assert results(service, study)["total"]["n"] == 3
    service.http.delete(path, params={"votes": "exclude"}, headers=service.researcher)
    assert len(rate(service.rater(study, "Bob"))) == 4


def test_nobody_s_votes_are_excluded_after_unblinding(service: Service) -> None:
    study = service.study({"x": 2})
    ada = service.rater(study)
    rate(ada)
    service.http.post(f"/studies/{study['id']}/unblind", headers=service.researcher)
    path = f"/studies/{study['id']}/annotators/{ada.id}"
    refused = service.http.delete(path, params={"votes": "exclude"}, headers=service.researcher)
    assert (refused.status_code, refused.json()["code"]) == (409, "study_closed")
    assert service.http.delete(path, headers=service.researcher).json()["excluded"] is False
    assert results(service, study)["total"]["n"] == 2


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"raters_per_pair": 2}, "/raters_per_pair"),
        ({"repeats": 0.1}, "/repeats"),
        ({"gold": gold(6)}, "/gold"),
        ({"protocol": "rigorous", "gold": gold(4)}, "/tutorial"),
        ({"protocol": "rigorous", "tutorial": 1}, "/tutorial"),
        ({"protocol": "rigorous", "repeats": 0.6}, "/repeats"),
        ({"protocol": "rigorous", "raters_per_pair": 0}, "/raters_per_pair"),
        ({"pairs_per_prompt": 2}, "/pairs_per_prompt"),
    ],
)
def test_what_cannot_be_asked_is_named(service: Service, fields: Json, pointer: str) -> None:
    body = {"name": "n", "a": "job_x", "b": "job_y", **fields}
    answer = service.http.post("/studies", json=body, headers=service.researcher)
    assert answer.status_code == 422, answer.text
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


def test_a_gold_prompt_can_be_a_conversation(service: Service) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    pair = {"prompt": turns, "better": "b", "worse": "w"}
    study = service.study({"x": 1}, protocol="rigorous", gold=[pair], tutorial=1)
    assert service.rater(study).pair()["prompt"] == turns
