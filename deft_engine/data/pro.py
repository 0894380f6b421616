"""The lists of PRO's published data: ``prefix``, ``suffix``, ``reward``, ``sft_index``.

``prefix`` is the prompt, once for each response or once for all: a string, or pieces of one; ``<|prompter|>``
and ``<|assistant|>`` begin its turns. ``suffix`` holds the responses.
"""

from __future__ import annotations

import re
from typing import Any

from deft_engine.data.prompts import Verbatim, read_prompt
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
from deft_engine.types import Message, Response, Role

_ASSISTANT = "<|assistant|>"
_TAG = re.compile(r"<\|(prompter|assistant)\|>")
_ROLES: dict[str, Role] = {"prompter": "user", "assistant": "assistant"}


def read(row: Row) -> Conversation:
    """A row with ``prefix`` and ``suffix``, optionally ``reward`` (one a response) and ``sft_index``.

    The response that ``sft_index`` names, the annotated one, comes first. The others follow by reward, the
    highest first; without rewards as they stand.
    """
    texts = [
        as_text(entry, f'"suffix"[{index}]')
        for index, entry in enumerate(as_list(require(row, "suffix"), '"suffix"'))
    ]
    prompt, verbatim = _prompt(row, len(texts))
    rewards = _rewards(row, len(texts))
    responses = [Response(verbatim(text), reward) for text, reward in zip(texts, rewards, strict=True)]
    best = [responses.pop(_sft_index(row, len(texts)))] if is_given(row, "sft_index") else []
    if None not in rewards:
        responses.sort(key=lambda response: response.reward or 0.0, reverse=True)
    return prompt, (*best, *responses)


def _prompt(row: Row, responses: int) -> tuple[tuple[Message, ...], Verbatim]:
    prompt = _prompt_text(require(row, "prefix"), responses)
    if _TAG.match(prompt) and prompt.endswith(_ASSISTANT):
        parts = _TAG.split(prompt.removesuffix(_ASSISTANT))[1:]  # tag, text, tag, text, ...
        turns = zip(parts[::2], parts[1::2], strict=True)
        return tuple(Message(_ROLES[tag], content) for tag, content in turns), str
    return read_prompt({"prefix": prompt}, ("prefix",))


def _prompt_text(prefix: Any, responses: int) -> str:
    """The one prompt of all responses."""
    if isinstance(prefix, str):
        return prefix
    entries = as_list(prefix, '"prefix"')
    texts = [_joined(entry, f'"prefix"[{index}]') for index, entry in enumerate(entries)]
    of_pieces = all(isinstance(entry, str) for entry in entries)
    if len(texts) == responses and len(set(texts)) == 1:
        return texts[0]
    if of_pieces:
        return "".join(texts)
    if len(texts) != responses:
        raise RowError(
            "wrong_type", f'"prefix" has {len(texts)} entries for {responses} responses; give one each'
        )
    raise RowError("no_shared_prompt", 'the entries of "prefix" differ; all responses answer one prompt')


def _joined(entry: Any, place: str) -> str:
    if isinstance(entry, list):
        return "".join(as_text(piece, f"{place}[{index}]") for index, piece in enumerate(entry))
    return as_text(entry, place)


def _rewards(row: Row, responses: int) -> list[float | None]:
    if not is_given(row, "reward"):
        return [None] * responses
    rewards = as_list(row["reward"], '"reward"')
    if len(rewards) != responses:
        raise RowError(
            "invalid_score", f'"reward" has {len(rewards)} entries for {responses} responses; give one each'
        )
    return [as_score(reward, f'"reward"[{index}]') for index, reward in enumerate(rewards)]


def _sft_index(row: Row, responses: int) -> int:
    index = row["sft_index"]
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < responses:
        raise RowError(
            "wrong_type", f'"sft_index" names none of the {responses} responses; they count from 0'
        )
    return index
