"""Pairs: ``chosen`` and ``rejected`` as strings or as message lists (TRL standard and conversational).

Message lists may repeat the prompt at their start (UltraFeedback binarized) or hold it alone (TRL's implicit
prompt): what both sides share before their last message is the prompt.
"""

from __future__ import annotations

from deft_engine.data.prompts import prompt_field, read_prompt
from deft_engine.data.validate import (
    Conversation,
    Row,
    RowError,
    as_messages,
    as_score,
    as_text,
    require,
)
from deft_engine.types import Message, Response

_PROMPT_FIELDS = ("prompt", "messages")


def read(row: Row) -> Conversation:
    """A row with ``prompt`` (or ``messages``), ``chosen``, ``rejected``, optionally ``score_...`` of each."""
    chosen, rejected = require(row, "chosen"), require(row, "rejected")
    if isinstance(chosen, list) != isinstance(rejected, list):
        raise RowError(
            "wrong_type",
            "chosen and rejected are a string and a list; write both as strings or both as lists",
        )
    scores = tuple(as_score(row.get(name), f'"{name}"') for name in ("score_chosen", "score_rejected"))
    if isinstance(chosen, list):
        prompt, texts = _conversational(row)
    else:
        prompt, verbatim = read_prompt(row, _PROMPT_FIELDS)
        texts = (
            verbatim(as_text(chosen, '"chosen"')),
            verbatim(as_text(rejected, '"rejected"')),
        )
    return prompt, tuple(Response(*pair) for pair in zip(texts, scores, strict=True))


def _conversational(row: Row) -> tuple[tuple[Message, ...], tuple[str, str]]:
    chosen = as_messages(row["chosen"], '"chosen"')
    rejected = as_messages(row["rejected"], '"rejected"')
    prompt: tuple[Message, ...] = ()
    if prompt_field(row, _PROMPT_FIELDS) is not None:
        prompt, _ = read_prompt(row, _PROMPT_FIELDS)
        if _starts_with(chosen, prompt) and _starts_with(rejected, prompt):
            chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    prompt += chosen[:shared]
    return prompt, (
        _answer(chosen[shared:], "chosen", len(prompt)),
        _answer(rejected[shared:], "rejected", len(prompt)),
    )


def _starts_with(messages: tuple[Message, ...], prompt: tuple[Message, ...]) -> bool:
    return messages[: len(prompt)] == prompt


def _answer(messages: tuple[Message, ...], field: str, prompt_length: int) -> str:
    """The one assistant message that is left behind the prompt."""
    if not messages:
        raise RowError("empty_response", f'"{field}" has no message behind the prompt; add the answer')
    if len(messages) > 1:
        raise RowError(
            "no_shared_prompt",
            f'"{field}" goes on for {len(messages)} messages behind the {prompt_length} that both share; '
            "the two may differ in their last message only",
        )
    if messages[0].role != "assistant":
        raise RowError(
            "wrong_type", f'the last message of "{field}" is of role {messages[0].role}; it must be assistant'
        )
    return messages[0].content
