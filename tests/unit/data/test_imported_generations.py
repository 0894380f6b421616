"""Answers made elsewhere: every row answers a sample or is in the ledger."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deft_engine.answering import run as answer
from deft_engine.data import imported_generations
from deft_engine.data.generations import read_generations, write_generations
from deft_engine.data.samples import write_samples
from deft_engine.data.selection import choose
from deft_engine.errors import DataError, FormatError
from deft_engine.events import EventWriter
from deft_engine.run import StageContext, StopRequest
from deft_engine.stages import GenerateSpec, ImportGenerationsSpec
from deft_engine.types import Generation, Message, Response, Sample
from tests.unit.data.conftest import jsonl

SAMPLES = [
    Sample(f"s{i}", "ab"[i % 2], (Message("user", f"Question {i}?"),),
           (Response(f"good {i}"), Response(f"bad {i}")), i + 1)
    for i in range(6)
] + [
    Sample("chat", "c", (Message("user", "Hello"), Message("assistant", "Hi"), Message("user", "Why?")),
           (Response("a"), Response("b")), 7),
    Sample("twin-1", "c", (Message("user", "Same?"),), (Response("a"), Response("b")), 8),
    Sample("twin-2", "c", (Message("user", "Same?"),), (Response("a"), Response("b")), 9),
]  # fmt: skip
Imported = tuple[dict[str, Any], dict[str, str], list[tuple[int, str]]]
Import = Callable[..., Imported]


@pytest.fixture
def import_answers(tmp_path: Path) -> Import:
    """Imports rows; returns the summary, response by sample, and the ledger's lines and codes."""
    write_samples(tmp_path / "samples", SAMPLES)
    (tmp_path / "out").mkdir()

    def run(rows: list[Any] | bytes) -> Imported:
        (tmp_path / "upload").write_bytes(rows if isinstance(rows, bytes) else jsonl(rows))
        inputs = {"upload": str(tmp_path / "upload"), "samples": str(tmp_path / "samples")}
        with EventWriter(tmp_path / "events") as events:
            out = tmp_path / "out"
            context = StageContext(ImportGenerationsSpec(), inputs, out, tmp_path, events, StopRequest())
            summary = imported_generations.run(context)
        answers = [json.loads(line) for line in (out / "imported.jsonl").read_bytes().splitlines()]
        ledger = [json.loads(line) for line in (out / "ledger.jsonl").read_bytes().splitlines()]
        found = {row["sample_id"]: row["response"] for row in answers}
        assert list(found) == [sample.id for sample in SAMPLES if sample.id in found], "the samples' order"
        return summary, found, [(entry["line"], entry["code"]) for entry in ledger]

    return run


def test_rows_find_their_samples_by_id_prompt_transcript_or_messages(import_answers: Import) -> None:
    summary, found, ledger = import_answers(
        [
            {"sample_id": "s3", "response": "third, \u2028 as it is  "},
            {"prompt": "Question 0?", "response": ""},
            {"prompt": "\n\nHuman: Question 1?\n\nAssistant:", "response": " one space less"},
            {"messages": [m._asdict() for m in SAMPLES[6].prompt], "response": "because"},
            {"sample_id": "twin-2", "prompt": "Same?", "response": "yes", "model": "theirs", "score": 3},
        ]
    )
    assert found == {"s0": "", "s1": "one space less", "s3": "third, \u2028 as it is  ", "chat": "because",
                     "twin-2": "yes"}  # fmt: skip
    assert ledger == []
    assert summary == {"format": "generations", "rows": 5, "samples": 5, "rejected": 0, "unanswered": 4,
                       "subsets": {"a": 1, "b": 2, "c": 2}}  # fmt: skip


def test_every_other_row_is_in_the_ledger_with_its_reason(import_answers: Import) -> None:
    rows: list[Any] = [
        {"sample_id": "s0", "response": "kept"},
        {"sample_id": "s0", "response": "again"},
        {"prompt": "Question 0?", "response": "again by its prompt"},
        {"sample_id": "nobody", "response": "x"},
        {"prompt": "Question 99?", "response": "x"},
        {"prompt": "Question 0? ", "response": "changed by a space"},
        {"sample_id": "s1", "prompt": "Question 2?", "response": "x"},
        {"prompt": "Same?", "response": "x"},
        {"response": "x"},
        {"sample_id": "s1"},
        {"sample_id": "s1", "response": 5},
        {"sample_id": ["s1"], "response": "x"},
        {"prompt": [{"role": "robot", "content": "x"}], "response": "x"},
        ["s1", "x"],
    ]
    content = jsonl(rows) + b"{\n" + b"\xff\n"
    summary, found, ledger = import_answers(content)
    assert found == {"s0": "kept"}
    assert ledger == [
        (2, "duplicate_answer"), (3, "duplicate_answer"), (4, "unknown_sample"), (5, "unknown_prompt"),
        (6, "unknown_prompt"), (7, "other_prompt"), (8, "ambiguous_prompt"), (9, "missing_field"),
        (10, "missing_field"), (11, "wrong_type"), (12, "wrong_type"), (13, "wrong_type"),
        (14, "invalid_json"), (15, "invalid_json"), (16, "invalid_utf8"),
    ]  # fmt: skip
    assert (summary["rows"], summary["samples"], summary["rejected"]) == (16, 1, 15)


def test_generations_of_a_job_can_be_imported_gzipped(import_answers: Import, tmp_path: Path) -> None:
    path = tmp_path / "generations.jsonl"
    write_generations(path, [Generation(s.id, s.subset, s.prompt, f"to {s.id}", "r") for s in SAMPLES[::-1]])
    summary, found, _ = import_answers(gzip.compress(path.read_bytes()))
    assert found == {sample.id: f"to {sample.id}" for sample in SAMPLES}
    assert summary["unanswered"] == 0


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (
            jsonl([{"sample_id": "x", "response": "y"}] * 3),
            DataError,
            'line 1: the dataset has no sample "x"',
        ),
        (b"\n", DataError, "no rows"),
        (b"PK\x03\x04...", FormatError, "zip archive"),
        (jsonl([{"sample_id": "s0", "response": "y"}])[:-4], DataError, "line 1"),
    ],
)
def test_a_file_that_answers_nothing_is_an_error_with_its_place(
    import_answers: Import, content: bytes, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        import_answers(content)


def generate(folder: Path, samples: int | None) -> tuple[dict[str, Any], list[Generation]]:
    """What the stage ``generate`` makes of imported answers."""
    spec = GenerateSpec(
        max_new_tokens=4,
        max_prompt_length=16,
        samples=samples,
        seed=1,
        batch_size=1,
        dtype="auto",
        template="auto",
    )
    inputs = {"samples": str(folder / "samples"), "generations": str(folder / "out" / "imported.jsonl")}
    with EventWriter(folder / "events-2") as events:
        result = answer(StageContext(spec, inputs, folder / "out", folder, events, StopRequest()))
    return result, list(read_generations(folder / "out" / "generations.jsonl"))


def test_the_chosen_samples_answers_take_the_place_of_generated_ones(
    import_answers: Import, tmp_path: Path
) -> None:
    import_answers([{"sample_id": s.id, "response": f"to {s.id}"} for s in SAMPLES if s.id != "s4"])
    result, found = generate(tmp_path, None)
    assert [g.sample_id for g in found] == [s.id for s in SAMPLES if s.id != "s4"]
    assert [g.response for g in found] == [f"to {g.sample_id}" for g in found]
    assert [g.reference for g in found] == [s.chosen.text for s in SAMPLES if s.id != "s4"]
    assert (result["samples"], result["unanswered"]) == (8, 1)
    assert "1 of the 9 chosen samples" in result["warnings"][0]
    result, found = generate(tmp_path, 4)
    chosen = [SAMPLES[i].id for i in choose(9, 4, 1)]
    assert [g.sample_id for g in found] == [name for name in chosen if name != "s4"]


def test_answers_to_none_of_the_chosen_samples_are_an_error(import_answers: Import, tmp_path: Path) -> None:
    left_out = next(i for i in range(9) if i not in choose(9, 4, 1))
    import_answers([{"sample_id": SAMPLES[left_out].id, "response": "x"}])
    with pytest.raises(DataError, match="none of the 4 chosen samples"):
        generate(tmp_path, 4)
