"""UltraFeedback as published: an ``instruction`` and ``completions``, each with an ``overall_score``."""

from __future__ import annotations

from typing import Any

from deft_engine.data.prompts import read_prompt
from deft_engine.data.validate import (
    Conversation,
    Row,
    RowError,
    as_list,
    as_object,
    as_score,
    as_text,
    require,
)
from deft_engine.types import Response


def read(row: Row) -> Conversation:
    """A row with ``instruction`` and ``completions``; other keys of a completion are not read.

    The completions stand in no order, so each needs its score; the highest comes first, equal ones as they
    stand.
    """
    prompt, verbatim = read_prompt(row, ("instruction",))
    completions = as_list(require(row, "completions"), '"completions"')
    responses = [_completion(entry, f'"completions"[{index}]') for index, entry in enumerate(completions)]
    responses.sort(key=lambda response: response.reward or 0.0, reverse=True)
    return prompt, tuple(Response(verbatim(text), score) for text, score in responses)


def _completion(value: Any, place: str) -> Response:
    completion = as_object(value, place, '{"response": ..., "overall_score": ...}')
    response = as_text(completion.get("response"), f"{place}.response")
    score = as_score(completion.get("overall_score"), f"{place}.overall_score")
    if score is None:
        raise RowError("invalid_score", f"{place}.overall_score is null; every completion needs its score")
    return Response(response, score)
