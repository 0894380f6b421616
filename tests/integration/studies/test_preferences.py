"""Votes become training data: the export loads again, and a study becomes a dataset."""

from __future__ import annotations

import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from app.db.models import Dataset
from app.db.queries import artifact_of_run
from app.db.session import transaction
from app.store import get_store
from tests.api_world import run_stages
from tests.study_world import Rater, Service

Json = dict[str, Any]


def side_of(pair: Json, word: str) -> str:
    return "left" if word in pair["left"] else "right"


def number_of(pair: Json) -> int:
    return int(pair["prompt"][0]["content"].split()[1])


def rate(rater: Rater, choices: dict[int, str]) -> None:
    """By the prompt's number: "a", "b" or "tie"; the others are left unrated."""
    after = None
    while (answer := rater.next(after)).status_code == 200:
        pair = answer.json()
        choice = choices.get(number_of(pair))
        if choice is None:
            rater.skip(pair["id"], "unclear")
        else:
            rater.vote(pair["id"], "tie" if choice == "tie" else side_of(pair, f"system-{choice}"))


@pytest.fixture
def rated(service: Service) -> Json:
    """Six pairs: a wins by all, b by all, a by two of three, one each and a tie, all ties, nobody voted."""
    study = service.study({"x": 6}, protocol="rigorous")
    votes = [
        {0: "a", 1: "b", 2: "a", 3: "a", 4: "tie"},
        {0: "a", 1: "b", 2: "a", 3: "b", 4: "tie"},
        {0: "a", 1: "b", 2: "b", 3: "tie", 4: "tie"},
    ]
    for name, choices in zip(("Ada", "Bob", "Eve"), votes, strict=True):
        rate(service.rater(study, name), choices)
    return study


def exported(service: Service, study: Json, **params: str) -> list[Json]:
    answer = service.http.get(
        f"/studies/{study['id']}/export.jsonl", params=params, headers=service.researcher
    )
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def make_dataset(service: Service, **asked: Any) -> Any:
    return service.http.post("/datasets", json=asked, headers=service.researcher)


def test_a_row_is_what_most_raters_prefer(service: Service, rated: Json) -> None:
    rows = {row["id"]: row for row in exported(service, rated)}
    assert set(rows) == {"x-0000", "x-0001", "x-0002"}
    for name, chosen, share in (("x-0000", "a", 1), ("x-0001", "b", 1), ("x-0002", "a", 2 / 3)):
        row = rows[name]
        assert f"system-{chosen} says" in row["chosen"]
        assert f"system-{chosen} says" not in row["rejected"]
        assert row["score_chosen"] == pytest.approx(share)
        assert row["score_rejected"] == pytest.approx(1 - share)
        assert row["prompt"][-1]["role"] == "user"
        assert row["subset"] == "x"


def test_ties_are_kept_in_both_orders(service: Service, rated: Json) -> None:
    rows = {row["id"]: row for row in exported(service, rated, ties="keep")}
    assert len(rows) == 7
    for name in ("x-0003", "x-0004"):
        one, other = rows[f"{name}-tie-1"], rows[f"{name}-tie-2"]
        assert (one["chosen"], one["rejected"]) == (other["rejected"], other["chosen"])
        assert one["score_chosen"] == one["score_rejected"] == 0.5


def test_a_study_becomes_a_dataset_that_the_service_reads(service: Service, rated: Json) -> None:
    answer = make_dataset(service, study=rated["id"], ties="keep", name="from people")
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["name"], made["status"]) == ("from people", "processing")
    run_stages("import")
    found = service.http.get(f"/datasets/{made['id']}", headers=service.viewer).json()
    assert (found["status"], found["format"], found["samples"], found["rejected"]) == (
        "ready",
        "pairwise",
        7,
        0,
    )
    with transaction() as session:
        run = session.get_one(Dataset, made["id"]).import_run_id
        samples = artifact_of_run(session, run, "samples.parquet")
    assert samples is not None
    read = pq.read_table(get_store().get(samples.sha256)).to_pylist()
    written = exported(service, rated, ties="keep")
    assert [row["id"] for row in read] == [row["id"] for row in written]
    for row, source in zip(read, written, strict=True):
        assert [response["text"] for response in row["responses"]] == [source["chosen"], source["rejected"]]
        assert [turn["content"] for turn in row["prompt"]] == [turn["content"] for turn in source["prompt"]]


def test_the_same_request_again_makes_one_dataset(service: Service, rated: Json) -> None:
    headers = service.researcher | {"Idempotency-Key": "once"}
    made = [
        service.http.post("/datasets", json={"study": rated["id"]}, headers=headers).json() for _ in range(2)
    ]
    assert made[0] == made[1]
    assert made[0]["name"] == "votes of duel"


def test_raters_who_break_a_rule_teach_nothing(service: Service) -> None:
    study = service.study({"x": 6}, protocol="rigorous", exclusion={"min_seconds": 2})
    for name, system, seconds in (("Ada", "a", 9.0), ("Bob", "b", 1.0), ("Eve", "b", 1.0)):
        rater = service.rater(study, name)
        while (answer := rater.next()).status_code == 200:
            pair = answer.json()
            rater.vote(pair["id"], side_of(pair, f"system-{system}"), seconds=seconds)
    rows = exported(service, study)
    assert len(rows) == 6
    assert all("system-a says" in row["chosen"] for row in rows)


def test_hidden_votes_are_no_data_before_unblinding(service: Service) -> None:
    study = service.study({"x": 2}, results="after_unblinding")
    rate(service.rater(study), {0: "a", 1: "b"})
    assert make_dataset(service, study=study["id"]).json()["code"] == "results_hidden"
    path = f"/studies/{study['id']}/export.jsonl"
    assert service.http.get(path, headers=service.researcher).status_code == 409
    service.http.post(f"/studies/{study['id']}/unblind", headers=service.researcher)
    assert make_dataset(service, study=study["id"]).status_code == 201


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"study": "stu_none"}, 404, "not_found"),
        ({"study": 3}, 422, "invalid_request"),
        ({"study": "stu_x", "ties": "some"}, 422, "invalid_request"),
        ({"study": "stu_x", "tie": "keep"}, 422, "invalid_request"),
    ],
)
def test_what_cannot_be_made_is_refused(service: Service, asked: Json, status: int, code: str) -> None:
    answer = make_dataset(service, **asked)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_study_without_votes_is_no_dataset(service: Service) -> None:
    study = service.study({"x": 2})
    answer = make_dataset(service, study=study["id"])
    assert (answer.status_code, answer.json()["code"]) == (409, "no_preferences")
    assert exported(service, study) == []
