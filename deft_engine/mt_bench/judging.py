"""Stage ``judge``: an endpoint grades the answers to every turn; ratings by category and turn (Fig. 4).

With the input ``against`` it compares them with another model's instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from deft_engine.endpoints.client import ChatClient
from deft_engine.endpoints.spec import EndpointSpec
from deft_engine.mt_bench.cases import Case, read_cases
from deft_engine.mt_bench.comparing import compare
from deft_engine.mt_bench.files import written_id
from deft_engine.mt_bench.grading import (
    PROMPT_VERSION,
    judge_request,
    names_a_rating,
    read_rating,
)
from deft_engine.mt_bench.output import write_judgments
from deft_engine.run import StageContext
from deft_engine.stages import JudgeSpec

_UNPARSED = -1  # FastChat's mark of a judgment without a rating


@dataclass(frozen=True, slots=True)
class _Judged:
    """A graded answer; the rating is None where the judgment has none."""

    case: Case
    judgment: str
    rating: float | None


def run(context: StageContext[JudgeSpec]) -> dict[str, Any]:
    """Write ``judgments.jsonl`` (in FastChat's form) and ``mt_bench.json``; the latter is the result.

    Raises:
        DataError: a file cannot be read, or a question has no answer.
        EndpointError: a judgment cannot be had; those that came are kept and not asked for again.
    """
    if "against" in context.inputs:
        return compare(context)
    cases = read_cases(context)
    requests = [
        judge_request(case.question, case.answers, case.references, case.turn, context.spec.max_new_tokens)
        for case in cases
    ]
    with ChatClient.open(context) as client:
        found = client.collect(requests, context.events)
        usage = client.usage
    judged = [
        _Judged(case, answer.text, read_rating(answer.text))
        for case, answer in zip(cases, found, strict=True)
    ]
    judge = EndpointSpec.from_uri(context.inputs["endpoint"]).model
    results = summarise(judged, judge)
    write_judgments(context, (_row(one, judge) for one in judged), results)
    return {**results, "endpoint": usage}


def summarise(judged: Sequence[_Judged], judge: str) -> dict[str, Any]:
    """Mean ratings over all answers, by turn, by category and by both, each with its n and its unparsed."""
    categories = sorted({one.case.question.category for one in judged})
    turns = sorted({one.case.turn for one in judged})
    unreferenced = sum(one.case.lacks_reference for one in judged)
    directed = sum(names_a_rating(one.case.answer) for one in judged)
    total = _figure(judged)
    return {
        "model": judged[0].case.answers.model,
        "judge": judge,
        "signature": f"mt_bench|single|1-10|judge:{judge}|temp:0|prompt:v{PROMPT_VERSION}",
        "total": total,
        "turns": {str(turn + 1): _figure(one for one in judged if one.case.turn == turn) for turn in turns},
        "categories": {
            category: {
                **_figure(one for one in judged if one.case.question.category == category),
                "turns": {
                    str(turn + 1): _figure(
                        one
                        for one in judged
                        if one.case.question.category == category and one.case.turn == turn
                    )
                    for turn in turns
                },
            }
            for category in categories
        },
        "unparsed": total["unparsed"],
        "naming_a_rating": directed,
        "without_reference": unreferenced,
        "warnings": _warnings(total["unparsed"], directed, unreferenced, len(judged)),
    }


def _figure(judged: Iterable[_Judged]) -> dict[str, Any]:
    """``value`` is the mean of the ratings that could be read, of which there are ``n``."""
    ratings = [one.rating for one in judged]
    known = [rating for rating in ratings if rating is not None]
    value = math.fsum(known) / len(known) if known else None
    return {"value": value, "n": len(known), "unparsed": len(ratings) - len(known)}


def _warnings(unparsed: int, directed: int, unreferenced: int, total: int) -> list[str]:
    said = []
    if unparsed:
        said.append(f"{unparsed} of {total} judgments hold no rating; the means leave them out")
    if directed:
        said.append(f"{directed} of {total} answers name a rating themselves; read what the judge made of it")
    if unreferenced:
        said.append(f"{unreferenced} answers in math, reasoning or coding were judged without a reference")
    return said


def _row(judged: _Judged, judge: str) -> dict[str, Any]:
    case = judged.case
    return {
        "question_id": written_id(case.question.id),
        "model": case.answers.model,
        "judge": [judge, f"deft-single-v{PROMPT_VERSION}"],
        "category": case.question.category,
        "turn": case.turn + 1,
        "score": _UNPARSED if judged.rating is None else judged.rating,
        "judgment": judged.judgment,
    }
