"""What a study found, over HTTP: raters' figures, rules for exclusion, hidden results, interim looks."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from scipy.stats import binomtest
from sqlalchemy import select, text

from app.db.models import AuditEntry
from app.db.session import transaction
from tests.study_world import Rater, Service

Json = dict[str, Any]


def gold(size: int) -> list[Json]:
    return [
        {"prompt": f"Known {number}", "better": f"right {number}", "worse": f"wrong {number}"}
        for number in range(size)
    ]


def results(service: Service, study: Json) -> Json:
    found: Json = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    return found


def unblind(service: Service, study: Json) -> None:
    answer = service.http.post(f"/studies/{study['id']}/unblind", headers=service.researcher)
    assert answer.status_code == 200


def side_of(pair: Json, word: str) -> str:
    """The side whose answer has ``word``; a test may read what a rater may not know."""
    return "left" if word in pair["left"] else "right"


def rate_all(rater: Rater, prefers: str, on_gold: str = "right", seconds: float = 10.0) -> int:
    """Vote for the system ``prefers`` ("a", "b") or a side until nothing is left; on gold for ``on_gold``."""
    votes = 0
    while (answer := rater.next()).status_code == 200:
        pair = answer.json()
        if "Known" in pair["prompt"][0]["content"]:
            choice = side_of(pair, on_gold)
        else:
            choice = prefers if prefers in ("left", "tie") else side_of(pair, f"system-{prefers}")
        assert rater.vote(pair["id"], choice, seconds=seconds).status_code == 200
        votes += 1
    return votes


@pytest.fixture
def careless(service: Service) -> tuple[Json, dict[str, str]]:
    """A study of 20 pairs in which Eve always takes the left side, fast, and the worse gold answer."""
    study = service.study(
        {"x": 20},
        protocol="rigorous",
        gold=gold(6),
        gold_share=0.3,
        tutorial=0,
        repeats=0.3,
        exclusion={"min_gold_accuracy": 0.7, "max_left_rate_deviation": 0.4, "min_seconds": 2},
    )
    raters = {name: service.rater(study, name) for name in ("Ada", "Bob", "Eve")}
    rate_all(raters["Ada"], "a", seconds=11)
    rate_all(raters["Bob"], "a", seconds=7)
    rate_all(raters["Eve"], "left", on_gold="wrong", seconds=1)
    return study, {name: rater.id for name, rater in raters.items()}


def test_raters_figures_tell_who_was_careless(
    service: Service, careless: tuple[Json, dict[str, str]]
) -> None:
    study, _ = careless
    raters = {rater["name"]: rater for rater in results(service, study)["raters"]}
    for name, share, seconds in (("Ada", 1.0, 11), ("Bob", 1.0, 7), ("Eve", 0.0, 1)):
        assert raters[name]["votes"] == 20
        assert raters[name]["gold"]["n"] == 6
        assert raters[name]["gold"]["share"] == share
        assert raters[name]["seconds"] == seconds
        assert raters[name]["repeats"]["n"] == 6
    assert raters["Ada"]["repeats"]["share"] == 1
    assert raters["Eve"]["repeats"]["share"] == 0  # the sides of a repeat are swapped
    assert raters["Eve"]["left"]["share"] == 1
    assert raters["Ada"]["excluded_by"] == []
    assert set(raters["Eve"]["excluded_by"]) == {
        "min_gold_accuracy",
        "max_left_rate_deviation",
        "min_seconds",
    }


def test_figures_stand_with_and_without_those_who_break_a_rule(
    service: Service, careless: tuple[Json, dict[str, str]]
) -> None:
    study, raters = careless
    found = results(service, study)
    after = found["after_exclusion"]
    assert (after["excluded_raters"], after["excluded_votes"]) == ([raters["Eve"]], 20)
    assert found["total"]["n"] == 60
    assert (after["total"]["n"], after["total"]["win"]["count"]) == (40, 40)
    assert found["agreement"]["krippendorff_alpha"] < 0.5
    low, high = found["agreement"]["krippendorff_interval"]
    assert low <= found["agreement"]["krippendorff_alpha"] <= high
    assert after["agreement"]["krippendorff_alpha"] is None  # all votes are the same
    assert found["total"]["win_rate"]["raters"] == 3
    low, high = found["total"]["win_rate"]["interval"]
    assert low < found["total"]["win_rate"]["share"] < high
    assert found["total"]["length_controlled"]["reason"]  # "system-a" is as long as "system-b"


def test_without_rules_nothing_is_excluded(service: Service) -> None:
    study = service.study({"x": 3})
    rate_all(service.rater(study), "a")
    found = results(service, study)
    assert (found["after_exclusion"], found["hidden"], found["looks"]) == (None, False, [])
    assert found["raters"][0]["excluded_by"] == []


def test_rules_are_part_of_what_is_frozen(service: Service) -> None:
    jobs = service.study({"x": 3})
    asked = {"name": "duel", "a": jobs["a"], "b": jobs["b"]}
    hashes = set()
    for more in ({}, {"exclusion": {"min_seconds": 2}}, {"results": "after_unblinding"}):
        answer = service.http.post("/studies", json=asked | more, headers=service.researcher)
        assert answer.status_code == 201
        hashes.add(answer.json()["manifest_sha256"])
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"exclusion": {"min_gold_accuracy": 0.8}}, "/exclusion/min_gold_accuracy"),
        ({"exclusion": {"min_repeat_consistency": 0.8}}, "/exclusion/min_repeat_consistency"),
        ({"exclusion": {"min_seconds": -1}}, "/exclusion/min_seconds"),
        ({"interim_looks": 1}, "/interim_looks"),
        ({"interim_looks": 1, "results": "after_unblinding", "protocol": "rigorous"}, "/interim_looks"),
    ],
)
def test_a_rule_or_look_that_cannot_be_is_refused_with_its_place(
    service: Service, more: Json, pointer: str
) -> None:
    jobs = service.study({"x": 3})
    asked = {"name": "duel", "a": jobs["a"], "b": jobs["b"], **more}
    answer = service.http.post("/studies", json=asked, headers=service.researcher)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_hidden_results_tell_counts_of_raters_alone(service: Service) -> None:
    study = service.study({"x": 8}, results="after_unblinding")
    rater = service.rater(study)
    rate_all(rater, "a")
    found = results(service, study)
    assert found["hidden"] is True
    assert [found[name] for name in ("subsets", "harmless", "helpful", "total")] == [None] * 4
    assert (found["pairs"], found["strengths"], found["after_exclusion"]) == ([], {}, None)
    assert [(one["name"], one["votes"]) for one in found["raters"]] == [("Ada", 8)]
    export = service.http.get(f"/studies/{study['id']}/export.csv", headers=service.researcher)
    assert export.status_code == 409
    assert export.json()["code"] == "results_hidden"
    unblind(service, study)
    found = results(service, study)
    assert found["hidden"] is False
    assert (found["total"]["win"]["count"], found["total"]["n"]) == (8, 8)
    export = service.http.get(f"/studies/{study['id']}/export.csv", headers=service.researcher)
    assert export.status_code == 200


def test_planned_looks_come_when_they_are_due_and_no_sooner(service: Service) -> None:
    study = service.study({"x": 20}, results="after_unblinding", interim_looks=1, boundary="pocock")
    assert study["alphas"] == pytest.approx([0.0294, 0.0294], abs=1e-4)  # Pocock's, for two analyses
    rater = service.rater(study)

    def look() -> Any:
        return service.http.post(f"/studies/{study['id']}/looks", headers=service.researcher)

    for _ in range(9):
        pair = rater.pair()
        rater.vote(pair["id"], side_of(pair, "system-a"))
    early = look()
    assert early.status_code == 409
    assert "10 of 20" in early.json()["detail"]
    pair = rater.pair()
    rater.vote(pair["id"], side_of(pair, "system-b"))
    taken = look()
    assert taken.status_code == 201, taken.text
    found = taken.json()
    assert (found["number"], found["of"], found["wins"], found["ties"], found["losses"]) == (1, 1, 9, 0, 1)
    assert found["p_value"] == pytest.approx(binomtest(9, 10).pvalue)
    assert found["crossed"] is (found["p_value"] < found["alpha"]) is True
    assert look().status_code == 409
    hidden = results(service, study)
    assert hidden["total"] is None
    assert [one["number"] for one in hidden["looks"]] == [1]
    with transaction() as session:
        actions = session.scalars(select(AuditEntry.action)).all()
    assert "study.look" in actions


def test_a_study_of_before_reads_as_open_and_without_rules(service: Service) -> None:
    study = service.study({"x": 1})
    with transaction() as session:
        session.execute(text("UPDATE studies SET exclusion = '{}'"))  # as the migration leaves it
    found = service.http.get(f"/studies/{study['id']}", headers=service.viewer).json()
    assert (found["results"], found["interim_looks"], found["alphas"]) == ("open", 0, [])
    assert set(found["exclusion"].values()) == {None}
    assert results(service, study)["after_exclusion"] is None


def test_pairs_on_which_raters_differ_are_read_with_who_says_what(service: Service) -> None:
    study = service.study({"x": 3, "y": 3}, protocol="rigorous")
    ada, bob = service.rater(study, "Ada"), service.rater(study, "Bob")
    rate_all(ada, "a")
    while (answer := bob.next()).status_code == 200:  # against Ada once, then by the side, which is chance
        pair = answer.json()
        bob.vote(pair["id"], side_of(pair, "system-b") if pair["done"] == 0 else "left")
    path = f"/studies/{study['id']}/disagreements"
    export = service.http.get(f"/studies/{study['id']}/export.csv", headers=service.researcher).text
    rows = list(csv.DictReader(io.StringIO(export.removeprefix("\ufeff"))))
    differing = {row["sample_id"] for row in rows if row["rater"] == "Bob" and row["winner"] == "b"}
    found = service.http.get(path, headers=service.researcher).json()
    assert {pair["sample_id"] for pair in found["data"]} == differing
    for pair in found["data"]:
        assert (pair["a"], pair["b"]) == (study["a"], study["b"])
        assert "system-a says" in pair["response_a"]
        assert [(vote["rater"], vote["winner"]) for vote in pair["votes"]] == [("Ada", "a"), ("Bob", "b")]
    of_y = service.http.get(path, params={"subset": "y"}, headers=service.researcher).json()["data"]
    assert {pair["sample_id"] for pair in of_y} == {name for name in differing if name.startswith("y")}
    walked, after = [], 0
    while page := service.http.get(
        path, params={"limit": 1, "after": after}, headers=service.researcher
    ).json():
        walked += [pair["sample_id"] for pair in page["data"]]
        if not page["has_more"]:
            break
        after = page["data"][-1]["id"]
    assert walked == [pair["sample_id"] for pair in found["data"]]
    assert service.http.get(path, headers=service.viewer).status_code == 403
