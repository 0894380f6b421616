"""Stage ``answer_locally``: a loaded model answers MT-Bench's questions, greedily, turn after turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deft_engine.generation import Answer, Decoder, answer_samples
from deft_engine.mt_bench.files import MOST_TURNS, read_questions, write_answers
from deft_engine.stages import AnswerLocallySpec
from deft_engine.types import Message

if TYPE_CHECKING:
    from deft_engine.run import StageContext


@dataclass(frozen=True, slots=True)
class _Turn:
    prompt: tuple[Message, ...]


def run(context: StageContext[AnswerLocallySpec]) -> dict[str, Any]:
    """Write ``answers.jsonl``. A turn is asked with all turns before it and the answers that they got.

    FastChat draws answers of some categories at a temperature; here all are greedy, so that a model has one
    result.

    Returns:
        Counts and the ``decoding``; ``at_limit``: answers with all the tokens that they may have, mostly cut.

    Raises:
        DataError: the questions cannot be read.
        ModelError: the model cannot be used.
        Interrupted: asked to stop; the windows that are done are kept.
    """
    questions = read_questions(context.path("questions"), context.work)
    decoder = Decoder.load(context.inputs["model"], context.spec)
    answers: list[list[Answer]] = [[] for _ in questions]
    for turn in range(MOST_TURNS):
        asked = [index for index, question in enumerate(questions) if len(question.turns) > turn]
        prompts = [
            _Turn(questions[index].conversation([answer.text for answer in answers[index]]))
            for index in asked
        ]
        answered = answer_samples(decoder, prompts, context, f"turn-{turn + 1}")
        for index, (_, answer) in zip(asked, answered, strict=True):
            answers[index].append(answer)
    texts = [[answer.text for answer in given] for given in answers]
    write_answers(context.out / "answers.jsonl", context.spec.model_id, questions, texts)
    lengths = [answer.tokens for given in answers for answer in given]
    return {
        "questions": len(questions),
        "at_limit": sum(length == context.spec.max_new_tokens for length in lengths),
        "tokens": sum(lengths),
        "decoding": decoder.decoding,
    }
