"""A blind comparison of the two aligned models, voted through the client."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from deft_client import DeftClient
from deft_client.models import Job
from tests.whole_service import WholeService

pytestmark = pytest.mark.timeout(900)  # a fixture waits for all stages of its job

PER_SUBSET = 2
CHOICES = ("left", "right", "tie")


def answers(service: WholeService, job: Job) -> dict[str, tuple[str, str]]:
    """Subset and response for each prompt that a job answered."""
    text = service.http.get(f"/jobs/{job.id}/artifacts/generations.jsonl").text
    rows = [json.loads(line) for line in text.splitlines()]
    return {json.dumps(row["prompt"]): (row["subset"], row["response"]) for row in rows}


def test_a_study_counts_what_was_voted(whole_service: WholeService, aligned: Job, plain: Job) -> None:
    studies = whole_service.client.studies
    study = studies.create(name="DEFT-DPO against DPO", a=aligned.id, b=plain.id, per_subset=PER_SUBSET)
    of_a, of_b = answers(whole_service, aligned), answers(whole_service, plain)
    sizes = Counter(subset for subset, _ in of_a.values())
    expected = {subset: min(size, PER_SUBSET) for subset, size in sizes.items()}
    rater = studies.add_annotator(study.id, name="Ada", subsets=sorted(expected))
    voted: Counter[str] = Counter()
    lefts = 0
    with DeftClient(whole_service.url, rater.key) as client:
        while (pair := client.studies.next_assignment(study.id)) is not None:
            assert (pair.done, pair.total) == (sum(voted.values()), sum(expected.values()))
            asked = json.dumps([message.model_dump() for message in pair.prompt])
            a, b = of_a[asked][1], of_b[asked][1]
            assert Counter([pair.left, pair.right]) == Counter([a, b])
            choice = CHOICES[sum(voted.values()) % 3]
            client.studies.vote(pair.id, choice)
            lefts += choice == "left"
            chosen = {"left": pair.left, "right": pair.right, "tie": None}[choice]
            voted["tie" if chosen is None else "same" if a == b else "win" if chosen == a else "lose"] += 1
    found = studies.results(study.id)
    total = found["total"]
    assert {subset: part["n"] for subset, part in found["subsets"].items()} == expected
    assert total["n"] == sum(voted.values()) == sum(expected.values())
    assert total["tie"]["count"] == voted["tie"]
    assert total["left"]["count"] == lefts
    for outcome in ("win", "lose"):  # which side is whose cannot be told where both answers are the same
        assert voted[outcome] <= total[outcome]["count"] <= voted[outcome] + voted["same"]
    assert total["win"]["count"] + total["lose"]["count"] + total["tie"]["count"] == total["n"]

    (listed,) = studies.annotators(study.id)
    assert (listed.id, listed.done, listed.total, listed.revoked) == (rater.id, total["n"], total["n"], False)
    assert studies.renew_link(study.id, rater.id).link not in (None, rater.link)
    assert studies.revoke_annotator(study.id, rater.id).revoked
    closed = studies.unblind(study.id)
    assert (closed.status, closed.unblinded_at is None) == ("closed", False)
    assert studies.results(study.id)["total"] == total
