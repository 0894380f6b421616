"""Uploads as a user sends them, and what the service says of rows that it cannot use."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from deft_client.errors import Invalid
from deft_client.models import Dataset
from tests.e2e.e2e_data import BROKEN_LINE, Files
from tests.whole_service import JOB_SECONDS, WholeService

pytestmark = pytest.mark.timeout(600)


def test_a_form_is_read_row_for_row(whole_service: WholeService, train_data: Dataset, files: Files) -> None:
    assert train_data.status == "ready"
    assert train_data.sha256 == hashlib.sha256(files.train.read_bytes()).hexdigest()
    assert (train_data.format, train_data.rows) == ("ranked", len(files.train_rows) + 1)
    assert (train_data.samples, train_data.rejected) == (len(files.train_rows), 1)
    page = whole_service.client.datasets.samples(train_data.id, limit=100)
    read = [(s.id, s.subset, [(r.text, r.reward) for r in s.responses]) for s in page.data]
    sent = [
        (row["id"], row["subset"], [(r["text"], r["score"]) for r in row["responses"]])
        for row in files.train_rows
    ]
    assert read == sent
    assert next(s.line for s in page.data if s.line >= BROKEN_LINE) == BROKEN_LINE + 1


def test_a_broken_line_is_in_the_ledger(whole_service: WholeService, train_data: Dataset) -> None:
    ledger = whole_service.client.datasets.validation(train_data.id).data
    assert [(entry.line, entry.code) for entry in ledger] == [(BROKEN_LINE, "invalid_json")]
    assert ledger[0].detail


def test_a_raw_body_gives_the_same_samples(
    whole_service: WholeService, train_data: Dataset, files: Files
) -> None:
    packed = gzip.compress(files.train.read_bytes())
    answer = whole_service.http.post("/datasets", params={"name": "raw, packed"}, content=packed)
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/datasets/{answer.json()['id']}"
    raw = whole_service.client.datasets.wait(answer.json()["id"], timeout=JOB_SECONDS, poll=0.1)
    assert raw.sha256 == hashlib.sha256(packed).hexdigest()
    assert (raw.samples, raw.rejected) == (train_data.samples, train_data.rejected)
    pages = [whole_service.client.datasets.samples(id, limit=100).data for id in (raw.id, train_data.id)]
    without_level = [[sample.model_dump(exclude={"level"}) for sample in page] for page in pages]
    assert without_level[0] == without_level[1]  # one of the two may have been graded by now


def test_rows_of_one_response_make_an_invalid_dataset_that_says_why(
    whole_service: WholeService, tmp_path: Path
) -> None:
    path = tmp_path / "single.jsonl"
    rows = [{"prompt": f"Question {i}?", "responses": ["The only answer."]} for i in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = whole_service.dataset(path)
    assert dataset.status == "invalid"
    assert dataset.error is not None
    assert dataset.error["message"] == 'line 1: "responses" has 1 entry; ranking needs at least 2'
    ledger = whole_service.client.datasets.validation(dataset.id).data
    assert [entry.line for entry in ledger] == [1, 2, 3]
    assert {entry.code for entry in ledger} == {"too_few_responses"}
    with pytest.raises(Invalid, match=dataset.id):
        whole_service.client.jobs.create({"kind": "grade", "dataset": dataset.id})
