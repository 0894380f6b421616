"""ShareGPT pairs as LLaMA-Factory writes them: ``conversations``, and ``chosen`` and ``rejected`` turns."""

from __future__ import annotations

from typing import Any

from deft_engine.data.validate import (
    Conversation,
    Row,
    RowError,
    as_list,
    as_object,
    as_text,
    is_given,
    require,
    text,
)
from deft_engine.types import Message, Response, Role

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_TURN = '{"from": ..., "value": ...}'


def read(row: Row) -> Conversation:
    """A row with ``conversations`` (the prompt), ``chosen`` and ``rejected``, optionally ``system``."""
    turns = as_list(require(row, "conversations"), '"conversations"')
    prompt = tuple(_turn(turn, f'"conversations"[{index}]') for index, turn in enumerate(turns))
    if is_given(row, "system"):
        prompt = (Message("system", text(row, "system")), *prompt)
    return prompt, (_answer(row, "chosen"), _answer(row, "rejected"))


def _turn(value: Any, place: str) -> Message:
    turn = as_object(value, place, _TURN)
    return Message(_role(turn, place), as_text(turn.get("value"), f"{place}.value"))


def _answer(row: Row, field: str) -> Response:
    turn = as_object(require(row, field), f'"{field}"', _TURN)
    if is_given(turn, "from") and _role(turn, f'"{field}"') != "assistant":
        raise RowError("wrong_type", f'"{field}" is not by the assistant; its "from" must be gpt')
    return Response(as_text(turn.get("value"), f'"{field}".value'))


def _role(turn: dict[str, Any], place: str) -> Role:
    name = turn.get("from")
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        shown = f'"{name[:40]}"' if isinstance(name, str) else "no string"
        raise RowError("wrong_type", f"{place}.from is {shown}; it is one of {', '.join(_ROLES)}")
    return role
