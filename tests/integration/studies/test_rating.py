"""Dealing pairs, voting, leases, undo, tabs at the same time, and the figures that come of it."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from scipy.stats import binomtest
from sqlalchemy import func, select, text

from app.db.models import Annotator, ApiKey, Assignment, StudyItem, Vote
from app.db.session import transaction
from tests.study_world import Rater, Service, evaluated_job, rows

COUNTS = {"harmless-base": 3, "helpful-base": 4}


def winner(pair: dict[str, str], choice: str) -> str:
    """Told by the texts alone: each system's responses name it."""
    return "tie" if choice == "tie" else pair[choice].split()[0].removeprefix("system-")


def let_lease_run_out(assignment_id: str) -> None:
    with transaction() as session:
        session.execute(
            text("UPDATE assignments SET lease_until = now() - interval '1 second' WHERE id = :id"),
            {"id": assignment_id},
        )


def test_rater_rates_all_pairs_once_and_the_figures_are_exact(service: Service) -> None:
    study = service.study(COUNTS)
    rater = service.rater(study)
    dice = random.Random(1)
    outcomes: Counter[tuple[str, str]] = Counter()
    sides: Counter[str] = Counter()
    seen = set()
    for done in range(7):
        pair = rater.pair()
        assert (pair["done"], pair["total"]) == (done, 7)
        choice = dice.choice(["left", "tie", "right"])
        subset = pair["prompt"][0]["content"].split()[-1].rstrip("?")
        seen.add(pair["prompt"][0]["content"])
        outcomes[subset, winner(pair, choice)] += 1
        sides[choice] += 1
        assert rater.vote(pair["id"], choice).json() == {"id": pair["id"], "choice": choice}
    assert rater.next().status_code == 204
    assert len(seen) == 7
    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    assert (found["a"], found["b"]) == (study["a"], study["b"])
    for subset, size in COUNTS.items():
        part = found["subsets"][subset]
        wins, ties, losses = (outcomes[subset, who] for who in ("a", "tie", "b"))
        assert (part["n"], part["win"]["count"], part["tie"]["count"], part["lose"]["count"]) == (
            size, wins, ties, losses,
        )  # fmt: skip
        assert part["win"]["share"] == pytest.approx(wins / size)
        interval = binomtest(wins, size).proportion_ci(0.95, "wilson")
        assert part["win"]["interval"] == pytest.approx([interval.low, interval.high])
    assert found["harmless"] == found["subsets"]["harmless-base"]
    assert found["helpful"] == found["subsets"]["helpful-base"]
    assert found["total"]["n"] == 7
    assert found["total"]["left"]["count"] == sides["left"]
    assert found["total"]["left"]["n"] == sides["left"] + sides["right"]
    assert [(one["id"], one["votes"], one["late"]) for one in found["raters"]] == [(rater.id, 7, 0)]
    assert set(found["exclusions"].values()) == {0}


def test_an_open_pair_comes_again_and_its_lease_is_renewed(service: Service) -> None:
    rater = service.rater(service.study(COUNTS))
    first = rater.pair()
    assert rater.pair() == first
    let_lease_run_out(first["id"])
    assert rater.pair() == first
    with transaction() as session:
        left = session.scalar(select(Assignment.lease_until - func.now()))
    assert left is not None
    assert 29 * 60 < left.total_seconds() <= 30 * 60


def test_a_late_vote_is_kept_and_marked(service: Service) -> None:
    study = service.study(COUNTS)
    rater = service.rater(study)
    pair = rater.pair()
    let_lease_run_out(pair["id"])
    assert rater.vote(pair["id"], "left").status_code == 200
    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    assert found["total"]["n"] == 1
    assert found["raters"][0]["late"] == 1


def test_the_same_vote_again_is_one_vote_and_another_is_refused(service: Service) -> None:
    rater = service.rater(service.study(COUNTS))
    pair = rater.pair()
    assert rater.vote(pair["id"], "left", comment="clear").status_code == 200
    assert rater.vote(pair["id"], "left", comment="clear").status_code == 200
    for other in ({"choice": "right"}, {"choice": "left", "comment": "no"}):
        refused = rater.vote(pair["id"], **other)
        assert refused.status_code == 409
        assert refused.json()["code"] == "vote_stands"
    with transaction() as session:
        assert session.scalars(select(Vote.choice)).all() == ["left"]


def test_undo_opens_the_pair_and_keeps_the_record(service: Service) -> None:
    study = service.study(COUNTS)
    rater = service.rater(study)
    first = rater.pair()
    rater.vote(first["id"], "left")
    second = rater.pair()
    opened = rater.undo(first["id"]).json()
    assert opened == first
    assert rater.undo(first["id"]).json()["code"] == "not_voted"
    assert rater.pair() == first
    rater.vote(first["id"], "right")
    assert rater.pair() == second | {"done": 1}
    with transaction() as session:
        votes = session.execute(select(Vote.choice, Vote.undone_at.is_(None)).order_by(Vote.id)).all()
    assert [tuple(vote) for vote in votes] == [("left", False), ("right", True)]
    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    assert found["total"]["n"] == 1
    nobody_removed = {"removed_raters": 0, "removed_votes": 0}
    assert found["exclusions"] == {"undone": 1, "unvoted": 1, "skipped": 0, **nobody_removed}


def test_two_tabs_get_the_same_pair_and_cannot_vote_differently(service: Service) -> None:
    rater = service.rater(service.study(COUNTS))
    with ThreadPoolExecutor(8) as tabs:
        for _ in range(7):
            pairs = list(tabs.map(lambda _: rater.pair(), range(8)))
            assert all(pair == pairs[0] for pair in pairs)
            choices = ["left", "right"] * 4
            answers = list(tabs.map(lambda choice, name=pairs[0]["id"]: rater.vote(name, choice), choices))
            kept = {choice for choice, answer in zip(choices, answers, strict=True) if answer.is_success}
            assert len(kept) == 1
            assert {answer.status_code for answer in answers} == {200, 409}
    with transaction() as session:
        assert session.scalar(select(func.count()).select_from(Vote)) == 7


def test_a_rater_cannot_touch_anothers_assignment(service: Service) -> None:
    study = service.study(COUNTS, protocol="rigorous")
    ada, bob = service.rater(study, "Ada"), service.rater(study, "Bob")
    pair = ada.pair()
    assert bob.vote(pair["id"], "left").status_code == 404
    ada.vote(pair["id"], "left")
    assert bob.undo(pair["id"]).status_code == 404
    assert bob.vote("asg_none", "left").status_code == 404


@pytest.mark.parametrize(
    "body",
    [{}, {"choice": "a"}, {"choice": "left", "x": 1}, {"choice": "left", "comment": "x" * 2001},
     {"choice": "left", "comment": "\x00"}, {"choice": "left", "comment": "\ud800"}],
)  # fmt: skip
def test_wrong_votes_are_refused(service: Service, body: dict[str, object]) -> None:
    rater = service.rater(service.study(COUNTS))
    pair = rater.pair()
    headers = {**rater.headers, "Content-Type": "application/json"}
    answer = service.http.post(f"/assignments/{pair['id']}", content=json.dumps(body), headers=headers)
    assert answer.status_code == 422, answer.text


def test_raters_see_the_same_pairs_in_other_orders(service: Service) -> None:
    study = service.study({"x": 12}, protocol="rigorous")
    orders = []
    for name in ("Ada", "Bob"):
        rater = service.rater(study, name)
        order = []
        for _ in range(12):
            pair = rater.pair()
            order.append(pair["prompt"][0]["content"])
            rater.vote(pair["id"], "tie")
        orders.append(order)
    assert set(orders[0]) == set(orders[1])
    assert orders[0] != orders[1]  # by chance one time in 479,001,600


def test_a_revoked_raters_subset_goes_on_with_another(service: Service) -> None:
    """A lost link: the key is revoked, the votes stay, and the rest of the subset is rated by another."""
    study = service.study({"x": 5})
    ada = service.rater(study, "Ada")
    done_by_ada = set()
    for _ in range(2):
        pair = ada.pair()
        done_by_ada.add(pair["prompt"][0]["content"])
        ada.vote(pair["id"], "left")
    unrated = ada.pair()["prompt"][0]["content"]
    with transaction() as session:
        key_id = session.scalars(select(Annotator.key_id).where(Annotator.id == ada.id)).one()
        session.get_one(ApiKey, key_id).revoked_at = datetime.now(UTC)
    assert ada.next().status_code == 401
    bob = service.rater(study, "Bob")
    seen = set()
    for done in range(3):
        pair = bob.pair()
        assert (pair["done"], pair["total"]) == (done, 3)
        seen.add(pair["prompt"][0]["content"])
        bob.vote(pair["id"], "right")
    assert bob.next().status_code == 204
    assert unrated in seen
    assert not seen & done_by_ada
    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    assert found["total"]["n"] == 5
    raters = service.http.get(f"/studies/{study['id']}/annotators", headers=service.viewer).json()["data"]
    assert [(one["name"], one["revoked"], one["done"], one["total"]) for one in raters] == [
        ("Ada", True, 2, 2),
        ("Bob", False, 3, 3),
    ]


def test_agreement_of_two_raters(service: Service) -> None:
    study = service.study({"x": 4}, protocol="rigorous")

    def always(rater: Rater, verdicts: dict[str, str]) -> None:
        for _ in range(4):
            pair = rater.pair()
            wanted = verdicts[pair["prompt"][0]["content"].split()[1]]
            choice = next(c for c in ("left", "tie", "right") if winner(pair, c) == wanted)
            rater.vote(pair["id"], choice)

    always(service.rater(study, "Ada"), {"0": "a", "1": "a", "2": "b", "3": "tie"})
    always(service.rater(study, "Bob"), {"0": "a", "1": "b", "2": "b", "3": "tie"})
    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    # By hand. Kappa: observed 3/4, chance (2*1 + 1*2 + 1*1) / 16. Alpha: n = 8 values (3 a, 3 b, 2 tie),
    # observed 2 of 8 ordered pairs, expected (64 - 9 - 9 - 4) / (8 * 7).
    assert found["agreement"]["pairs"] == 4
    assert found["agreement"]["cohen_kappa"] == pytest.approx((3 / 4 - 5 / 16) / (1 - 5 / 16))
    assert found["agreement"]["krippendorff_alpha"] == pytest.approx(1 - (2 / 8) / (42 / 56))


def test_export_has_every_standing_vote_and_no_formula(service: Service) -> None:
    evil = rows({"=subset": 2}, "=cmd|'/c calc'!A0")
    a = evaluated_job(evil, name="a")
    b = evaluated_job(rows({"=subset": 2}, "+1"), name="b")
    body = {"name": "n", "a": a, "b": b}
    study = service.http.post("/studies", json=body, headers=service.researcher).json()
    rater = service.rater(study, name="@Ada")
    for comment in ("-1", 'plain, "quoted"\nlines'):
        pair = rater.pair()
        rater.vote(pair["id"], "left", comment=comment)
    answer = service.http.get(f"/studies/{study['id']}/export.csv", headers=service.researcher)
    assert answer.headers["content-type"].startswith("text/csv")
    table = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(table) == 2
    assert {row["comment"] for row in table} == {"'-1", 'plain, "quoted"\nlines'}
    for row in table:
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row.values())
        assert row["rater"] == "'@Ada"
        assert row["winner"] == ("a" if row["a_side"] == "left" else "b")
        assert row["response_a"].startswith("'=cmd")


def test_ids_and_choices_of_the_database_match_what_was_shown(service: Service) -> None:
    """The unblinding key: a_is_left in the table is what stood left on the screen."""
    rater = service.rater(service.study({"x": 8}))
    for _ in range(8):
        pair = rater.pair()
        with transaction() as session:
            assignment = session.get_one(Assignment, pair["id"])
            item = session.get_one(StudyItem, assignment.item_id)
            expected = (item.response_a, item.response_b)
            shown = (pair["left"], pair["right"]) if assignment.a_is_left else (pair["right"], pair["left"])
            assert shown == expected
        rater.vote(pair["id"], "tie")
