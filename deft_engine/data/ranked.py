"""Ranked lists: a prompt and its responses, best first, or in any order with a score each (RRHF)."""

from __future__ import annotations

from typing import Any

from deft_engine.data.prompts import read_prompt
from deft_engine.data.validate import (
    Conversation,
    Row,
    RowError,
    as_list,
    as_score,
    as_text,
    is_given,
    require,
)
from deft_engine.types import Response

PROMPT_FIELDS = ("prompt", "messages", "query")


def read(row: Row) -> Conversation:
    """A row with ``prompt``, ``messages`` or ``query``, ``responses``, and optionally ``scores``.

    Where every response has a score, the scores are the annotation: the responses are ordered by them, the
    highest first, equal ones as they stand. Otherwise the order in the file is best first.
    """
    prompt, verbatim = read_prompt(row, PROMPT_FIELDS)
    entries = as_list(require(row, "responses"), '"responses"')
    given = [_entry(entry, f'"responses"[{index}]') for index, entry in enumerate(entries)]
    if is_given(row, "scores"):
        given = _with_scores(given, as_list(row["scores"], '"scores"'))
    responses = [Response(verbatim(response.text), response.reward) for response in given]
    scores = [response.reward for response in responses if response.reward is not None]
    if len(scores) == len(responses):
        responses.sort(key=lambda response: response.reward or 0.0, reverse=True)
    return prompt, tuple(responses)


def _entry(entry: Any, place: str) -> Response:
    if isinstance(entry, dict):
        return Response(
            as_text(entry.get("text"), f"{place}.text"), as_score(entry.get("score"), f"{place}.score")
        )
    return Response(as_text(entry, place))


def _with_scores(responses: list[Response], scores: list[Any]) -> list[Response]:
    if len(scores) != len(responses):
        raise RowError(
            "invalid_score",
            f'"scores" has {len(scores)} entries for {len(responses)} responses; give one each',
        )
    return [
        Response(response.text, as_score(score, f'"scores"[{index}]'))
        for index, (response, score) in enumerate(zip(responses, scores, strict=True))
    ]
