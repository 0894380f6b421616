"""Blind comparisons voted through the client: what is counted, and what the votes teach the next model."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from deft_client import DeftClient
from deft_client.models import Dataset, Job
from deft_client.study_fields import GoldPair, StudyFields
from tests.e2e.e2e_data import STEPS, TRAINING, Files
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


@pytest.fixture(scope="session")
def eval_rows(files: Files) -> dict[str, dict[str, Any]]:
    """The held-out rows by id; the first response of each is the better one."""
    rows = [json.loads(line) for line in files.evaluation.read_text(encoding="utf-8").splitlines()]
    return {row["id"]: row for row in rows}


def imported(service: WholeService, data: Dataset, answers: dict[str, str], folder: Path, name: str) -> str:
    """A job that has evaluated answers made elsewhere."""
    lines = [json.dumps({"sample_id": sample, "response": text}) for sample, text in answers.items()]
    file = folder / f"{name}.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    sent = service.client.generations.upload(file, dataset=data.id, name=name)
    ready = service.client.generations.wait(sent.id, timeout=60)
    spec = {"kind": "evaluate", "name": name, "eval_dataset": data.id, "model": {"generations": ready.id}}
    return service.run(spec).id


def test_gold_comes_from_a_dataset_s_own_annotations(
    whole_service: WholeService, eval_data: Dataset, aligned: Job, plain: Job
) -> None:
    """As docs/http-api.md says: the best and the worst annotated answer of a sample."""
    known = whole_service.client.datasets.samples(eval_data.id, limit=3).data
    gold: list[GoldPair] = [
        {
            "prompt": [turn.model_dump() for turn in sample.prompt],
            "better": sample.responses[0].text,
            "worse": sample.responses[-1].text,
        }
        for sample in known
    ]
    studies = whole_service.client.studies
    fields: StudyFields = {"name": "with gold", "a": aligned.id, "b": plain.id, "per_subset": 1}
    study = studies.create(**fields, protocol="rigorous", gold=gold, tutorial=3)
    rater = studies.add_annotator(study.id, name="Ada", subsets=sorted(study.subsets))
    better = {sample.responses[0].text for sample in known}
    with DeftClient(whole_service.url, rater.key) as client:
        while (pair := client.studies.next_assignment(study.id)) is not None and pair.tutorial:
            said = client.studies.vote(pair.id, "left" if pair.left in better else "right").feedback
            assert said is not None
            assert said.agreed


@pytest.mark.slow
def test_votes_align_the_next_model(
    whole_service: WholeService,
    eval_data: Dataset,
    eval_rows: dict[str, dict[str, Any]],
    tmp_path: Path,
) -> None:
    """Study, dataset, DEFT run: what the rater preferred is what the last job trains on."""
    texts = {sample: [one["text"] for one in row["responses"][:2]] for sample, row in eval_rows.items()}
    better = {sample: place % 2 for place, sample in enumerate(texts)}  # where system a has the better answer
    jobs = [
        imported(
            whole_service,
            eval_data,
            {sample: two[(better[sample] + system) % 2] for sample, two in texts.items()},
            tmp_path,
            f"system {'ab'[system]}",
        )
        for system in (0, 1)
    ]
    studies = whole_service.client.studies
    study = studies.create(name="votes for training", a=jobs[0], b=jobs[1], per_subset=len(texts))
    rater = studies.add_annotator(study.id, name="Ada", subsets=sorted(study.subsets))
    good = {two[0] for two in texts.values()}
    with DeftClient(whole_service.url, rater.key) as client:
        while (pair := client.studies.next_assignment(study.id)) is not None:
            client.studies.vote(pair.id, "left" if pair.left in good else "right")

    datasets = whole_service.client.datasets
    votes = datasets.wait(datasets.from_study(study.id, name="votes").id, timeout=60)
    assert (votes.status, votes.samples, votes.rejected) == ("ready", len(texts), 0)
    job = whole_service.run(
        {
            "kind": "align",
            "name": "DEFT-DPO on votes",
            "dataset": votes.id,
            "eval_dataset": eval_data.id,
            "preset": "deft-dpo",
            "model": {"base": "tiny"},
            "deft": {"a": 50, "grader": {"name": "scores"}},
            "training": TRAINING,
            "evaluation": {"samples": 4, "max_new_tokens": 8},
        }
    )
    taught = whole_service.client.datasets.samples(votes.id, limit=100).data
    assert {one.id: [response.text for response in one.responses] for one in taught} == texts
    whole_service.client.jobs.download(job.id, "levels.parquet", tmp_path / "levels.parquet")
    levels = pq.read_table(tmp_path / "levels.parquet").to_pylist()
    assert {row["sample_id"]: row["score"] for row in levels} == dict.fromkeys(
        texts, 1.0
    )  # all votes are for it
    best = Counter(row["subset"] for row in levels if row["level"] == "A")
    assert best == {subset: math.ceil(0.5 * size) for subset, size in study.subsets.items()}
    (loss,) = (each for each in whole_service.client.jobs.metrics(job.id).data if each.name == "loss")
    assert [step for step, *_ in loss.points] == list(range(1, STEPS + 1))
    assert job.result["evaluate"]["total"]["bleu"]["n"] == 4
