import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from deft_engine.data.importing import run as import_stage
from deft_engine.errors import DataError
from deft_engine.events import EventWriter
from deft_engine.mt_bench.files import MOST_BYTES, Question, read_answers, read_questions
from deft_engine.run import StageContext, StopRequest
from deft_engine.stages import ImportSpec

GOOD = {"question_id": 81, "category": "writing", "turns": ["Write.", "Rewrite."]}


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "file.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def error(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        read_questions(path, path.parent)
    return caught.value


def test_fastchat_s_own_files_are_read(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "mt-bench"
    questions = read_questions(folder / "mt_bench__question.jsonl", tmp_path)
    assert len(questions) == 80
    assert {len(question.turns) for question in questions} == {2}
    assert len({question.category for question in questions}) == 8
    references = read_answers(folder / "mt_bench__reference_answer__gpt-4.jsonl", tmp_path)
    asked = {q.id for q in questions if q.category in ("math", "reasoning", "coding")}
    assert references.keys() == asked
    assert {answers.model for answers in references.values()} == {"gpt-4"}
    vicuna = read_questions(folder / "vicuna_bench__question.jsonl", tmp_path)
    assert {len(question.turns) for question in vicuna} == {1}


def test_what_a_question_has(tmp_path: Path) -> None:
    row = {**GOOD, "reference": ["short", ""]}
    assert read_questions(written(tmp_path, row), tmp_path) == [
        Question("81", "writing", ("Write.", "Rewrite."), ("short", ""))
    ]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"question_id": 82, "category": "math"}, 'has no "turns"'),
        ({"question_id": 82, "turns": []}, '"turns" has 0 entries'),
        ({"question_id": 82, "turns": ["a", "b", "c"]}, '"turns" has 3 entries'),
        ({"question_id": 82, "turns": "a"}, '"turns" is a string'),
        ({"question_id": 82, "turns": ["a", " "]}, '"turns"[1] has no text'),
        ({"question_id": 82, "turns": ["a", 5]}, '"turns"[1] is a number'),
        ({"turns": ["a"]}, 'has no "question_id"'),
        ({"question_id": 81, "turns": ["a"]}, "question_id 81 comes twice"),
        ({"question_id": 82, "choices": [{"turns": ["a"]}]}, "the row is an answer"),
        ({"question_id": 82, "choices": []}, '"choices" is empty'),
    ],
)
def test_a_wrong_row_is_told_with_its_line(bad: Any, said: str, tmp_path: Path) -> None:
    found = error(written(tmp_path, GOOD, bad))
    assert found.message.startswith("questions, line 2: ")
    assert said in found.message
    assert found.hint


def test_a_file_of_100_megabytes_is_told_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    assert error(path).message.startswith("questions: the file has 100000000 bytes")


def test_nor_is_it_read_when_it_is_packed(tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(MOST_BYTES // 2**20 + 2):
            file.write(b" " * (2**20 - 1) + b"\n")
    assert error(path).code == "invalid_format"
    assert error(path).error_code == "too_large"


def test_too_many_rows_and_none(tmp_path: Path) -> None:
    rows = [{"question_id": n, "turns": ["a"]} for n in range(10_001)]
    assert error(written(tmp_path, *rows)).message.startswith("questions, line 10001: more than 10000")
    assert error(written(tmp_path)).message == "questions: the file has no rows"


def test_an_upload_of_questions_is_checked_row_by_row(tmp_path: Path) -> None:
    rows = [GOOD, {"question_id": 82}, GOOD, {"question_id": 83, "turns": ["x"]}]
    for name in ("out", "work"):
        (tmp_path / name).mkdir()
    events = EventWriter(tmp_path / "events.jsonl")
    inputs = {"upload": str(written(tmp_path, *rows))}
    summary = import_stage(
        StageContext(ImportSpec(), inputs, tmp_path / "out", tmp_path / "work", events, StopRequest())
    )
    assert (summary["format"], summary["rows"], summary["samples"], summary["rejected"]) == (
        "fastchat",
        4,
        0,
        2,
    )
    assert summary["subsets"] == {"default": 1, "writing": 1}
    ledger = [json.loads(line) for line in (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()]
    assert [(row["line"], row["code"]) for row in ledger] == [(2, "missing_field"), (3, "duplicate_id")]
