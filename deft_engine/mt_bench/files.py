"""FastChat's files: questions, and answers (of a model, or the references).

::

    {"question_id": 81, "category": "writing", "turns": ["...", "..."], "reference": ["...", "..."]?}
    {"question_id": 81, "model_id": "m", "choices": [{"turns": ["...", "..."]}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from deft_engine.data.limits import ReadLimits
from deft_engine.data.rows import open_rows
from deft_engine.data.validate import Row, RowError, as_list, as_object, as_text, require, row_name
from deft_engine.errors import DataError
from deft_engine.types import Message

FASTCHAT = "fastchat"
"""The name of this format among those of uploads."""

MOST_TURNS = 2
MOST_QUESTIONS = 10_000
MOST_BYTES = 64 * 2**20
"""Of a file: MT-Bench's own has 80 questions and 60 kB."""

_DEFAULT_CATEGORY = "default"
_DEFAULT_MODEL = "model"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, turn by turn; ``references`` are the short answers that some questions carry."""

    id: str
    category: str
    turns: tuple[str, ...]
    references: tuple[str, ...] = ()

    def conversation(self, given: Sequence[str]) -> tuple[Message, ...]:
        """The messages up to the turn that follows the ``given`` answers."""
        messages: list[Message] = []
        for turn, answer in zip(self.turns, given, strict=False):
            messages += [Message("user", turn), Message("assistant", answer)]
        return (*messages, Message("user", self.turns[len(given)]))


@dataclass(frozen=True, slots=True)
class Answers:
    """A model's answers to one question, turn by turn."""

    question_id: str
    model: str
    turns: tuple[str, ...]


Entry = TypeVar("Entry", Question, Answers)


_FOUND = {Question: "the row is a question", Answers: "the row is an answer"}


def read_entry(row: Row) -> Question | Answers:
    """A row of either kind of file.

    Raises:
        RowError: it is neither, or has no turns.
    """
    return _answers(row) if "choices" in row else _question(row)


def read_questions(path: Path, scratch: Path) -> list[Question]:
    """The questions of a file, in its order.

    Raises:
        DataError: a row is no question, an id comes twice, or the file is too large; with the line.
    """
    return list(_entries(path, scratch, Question, "questions"))


def read_answers(path: Path, scratch: Path, called: str = "answers") -> dict[str, Answers]:
    """Question id -> answers; ``called`` names the file in errors. Raises as ``read_questions``."""
    return {found.question_id: found for found in _entries(path, scratch, Answers, called)}


def _entries(path: Path, scratch: Path, kind: type[Entry], called: str) -> Iterator[Entry]:
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise DataError(
            f"{called}: the file has {size} bytes, more than {MOST_BYTES}",
            hint="name FastChat's file, not a dataset",
            code="too_large",
        )
    seen: set[str] = set()
    limits = replace(ReadLimits.from_environment(), max_unpacked_bytes=MOST_BYTES)
    with open_rows(path, limits, scratch) as rows:
        for number, content in rows:
            place = f"{called}, {rows.unit} {number}"
            try:
                if isinstance(content, RowError):
                    raise content
                entry = read_entry(content)
            except RowError as error:
                raise DataError(
                    f"{place}: {error.detail}", hint="correct the row; see formats.md", code=error.code
                ) from None
            if not isinstance(entry, kind):
                raise DataError(
                    f"{place}: {_FOUND[type(entry)]}",
                    hint='a question has "turns", an answer "choices"; is it the other file?',
                    code="wrong_file",
                )
            name = entry.id if isinstance(entry, Question) else entry.question_id
            if name in seen:
                raise DataError(f"{place}: question_id {name} comes twice", hint="keep one row of each")
            seen.add(name)
            if len(seen) > MOST_QUESTIONS:
                raise DataError(f"{place}: more than {MOST_QUESTIONS} rows", hint="split the file")
            yield entry
    if not seen:
        raise DataError(f"{called}: the file has no rows", hint="name FastChat's file", code="no_rows")


def write_answers(
    path: Path, model: str, questions: Sequence[Question], answers: Sequence[Sequence[str]]
) -> None:
    """Write a model's answers, turn by turn, in the order of the questions."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for question, turns in zip(questions, answers, strict=True):
            row = {
                "question_id": written_id(question.id),
                "model_id": model,
                "choices": [{"index": 0, "turns": list(turns)}],
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def written_id(name: str) -> int | str:
    """A question's id as FastChat's own files have it: a number where it is one."""
    return int(name) if name.isascii() and name.isdecimal() else name


def _question(row: Row) -> Question:
    name = _id(row)
    references = row.get("reference") or []
    return Question(
        name,
        row_name(row, "category", _DEFAULT_CATEGORY),
        _turns(require(row, "turns"), '"turns"'),
        tuple(as_text(one, f'"reference"[{n}]') for n, one in enumerate(as_list(references, '"reference"'))),
    )


def _answers(row: Row) -> Answers:
    name = _id(row)
    choices = as_list(row["choices"], '"choices"')
    if not choices:
        raise RowError("missing_field", '"choices" is empty; write one with its "turns"')
    choice = as_object(choices[0], '"choices"[0]', '{"turns": [...]}')
    turns = as_list(choice.get("turns"), '"choices"[0].turns')
    texts = tuple(as_text(turn, f'"choices"[0].turns[{n}]') for n, turn in enumerate(turns[:MOST_TURNS]))
    return Answers(name, row_name(row, "model_id", _DEFAULT_MODEL), texts)


def _id(row: Row) -> str:
    require(row, "question_id")
    return row_name(row, "question_id", "")


def _turns(value: object, place: str) -> tuple[str, ...]:
    turns = as_list(value, place)
    if not 1 <= len(turns) <= MOST_TURNS:
        raise RowError("missing_field", f"{place} has {len(turns)} entries; a question has 1 or {MOST_TURNS}")
    found = tuple(as_text(turn, f"{place}[{index}]") for index, turn in enumerate(turns))
    for index, turn in enumerate(found):
        if not turn.strip():
            raise RowError("empty_prompt", f"{place}[{index}] has no text; write what is asked")
    return found
