"""What is judged: each turn of each question, with the answers up to it and references to show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deft_engine.errors import DataError
from deft_engine.mt_bench.files import Answers, Question, read_answers, read_questions
from deft_engine.run import StageContext

REFERENCED = frozenset({"math", "reasoning", "coding"})
"""Categories in which the judge is shown a reference."""


@dataclass(frozen=True, slots=True)
class Case:
    """One turn, counted from 0; ``references`` is empty where none is shown."""

    question: Question
    answers: Answers
    references: tuple[str, ...]
    turn: int

    @property
    def answer(self) -> str:
        """What is graded."""
        return self.answers.turns[self.turn]

    @property
    def lacks_reference(self) -> bool:
        """Whether a reference should be shown, and there is none."""
        return self.question.category in REFERENCED and not self.references


def read_cases(context: StageContext[Any]) -> list[Case]:
    """The cases of the inputs ``questions``, ``answers`` and, where it is given, ``references``.

    Raises:
        DataError: a file cannot be read, or a turn has no answer.
    """
    questions = read_questions(context.path("questions"), context.work)
    answers = read_answers(context.path("answers"), context.work)
    references = (
        read_answers(context.path("references"), context.work, "references")
        if "references" in context.inputs
        else {}
    )
    return list(_cases(questions, answers, references))


def answers_to(question: Question, answers: dict[str, Answers], called: str) -> Answers:
    """A file's answers to a question.

    Raises:
        DataError: a turn has none.
    """
    given = answers.get(question.id)
    if given is None or len(given.turns) < len(question.turns):
        has = 0 if given is None else len(given.turns)
        raise DataError(
            f"{called}: question {question.id} has {len(question.turns)} turns, and {has} answers",
            hint="answer every turn of every question, or name a file with the questions answered",
            code="missing_answers",
        )
    return given


def _cases(
    questions: list[Question], answers: dict[str, Answers], references: dict[str, Answers]
) -> Iterator[Case]:
    for question in questions:
        given = answers_to(question, answers, "answers")
        shown: tuple[str, ...] = ()
        if question.category in REFERENCED:
            in_file = references.get(question.id)
            shown = in_file.turns if in_file else question.references
        for turn in range(len(question.turns)):
            yield Case(question, given, shown, turn)
