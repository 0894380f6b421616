"""Stage ``answer``: an endpoint answers MT-Bench's questions, turn after turn, as a file of FastChat's."""

from __future__ import annotations

from typing import Any

from deft_engine.endpoints.chat import ChatAnswer, ChatRequest
from deft_engine.endpoints.client import ChatClient
from deft_engine.endpoints.spec import EndpointSpec
from deft_engine.mt_bench.files import MOST_TURNS, Question, read_questions, write_answers
from deft_engine.run import StageContext
from deft_engine.stages import AnswerSpec

TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
"""Category -> temperature of the answers; 0 for every other."""


def run(context: StageContext[AnswerSpec]) -> dict[str, Any]:
    """Write ``answers.jsonl``. A turn is asked with all turns before it and the answers that they got.

    Raises:
        DataError: the questions cannot be read.
        EndpointError: an answer cannot be had; those that came are kept and not asked for again.
    """
    spec = context.spec
    questions = read_questions(context.path("questions"), context.work)
    answers: list[list[ChatAnswer]] = [[] for _ in questions]
    with ChatClient.open(context) as client:
        for turn in range(MOST_TURNS):
            asked = [index for index, question in enumerate(questions) if len(question.turns) > turn]
            requests = [_request(questions[index], answers[index], spec) for index in asked]
            for index, answer in zip(asked, client.collect(requests, context.events), strict=True):
                answers[index].append(answer)
        usage = client.usage
    model = EndpointSpec.from_uri(context.inputs["endpoint"]).model
    texts = [[answer.text for answer in given] for given in answers]
    write_answers(context.out / "answers.jsonl", model, questions, texts)
    cut = sum(answer.cut for given in answers for answer in given)
    return {"questions": len(questions), "cut": cut, "endpoint": usage}


def _request(question: Question, given: list[ChatAnswer], spec: AnswerSpec) -> ChatRequest:
    messages = question.conversation([answer.text for answer in given])
    temperature = TEMPERATURES.get(question.category, 0.0)
    return ChatRequest(messages, spec.max_new_tokens, temperature, seed=spec.seed)
