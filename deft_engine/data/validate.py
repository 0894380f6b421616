"""Checks on one row of an upload. What fails is a :class:`RowError`, which becomes a ledger entry.

Codes of the ledger::

    invalid_utf8, line_too_long, invalid_json, lone_surrogate, nul_character      the line
    missing_field, wrong_type, invalid_score                                      a field
    too_few_responses, identical_responses, empty_response, empty_prompt          the sample
    no_shared_prompt, unparseable_transcript                                      a transcript
    duplicate_id                                                                  the file
"""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec

from deft_engine.types import Message, Response, Role

Row = dict[str, Any]
Conversation = tuple[tuple[Message, ...], tuple[Response, ...]]
"""A prompt and its responses, best first: what a reader makes of a row."""

_ROLES = ("system", "user", "assistant")
_LARGEST_SCORE = 1e100  # differences and squares of scores stay finite
_LONGEST_NAME = 500
_NAMES = {str: "a string", int: "a number", float: "a number", list: "a list", bytes: "binary data"}
_decoder = msgspec.json.Decoder()


class RowError(Exception):
    """A row cannot be used; ``detail`` says what was found and what to do."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def decode_row(line: bytes) -> Row:
    """The JSON object on a line.

    Raises:
        RowError: not UTF-8, not JSON, or not an object.
    """
    try:
        decoded = line.decode()
    except UnicodeDecodeError as error:
        raise RowError(
            "invalid_utf8", f"byte {error.start + 1} of the line is not UTF-8; save the file as UTF-8"
        ) from None
    try:
        row = _decoder.decode(line)
    except RecursionError:
        raise RowError("invalid_json", "nested too deeply to be read; a row is a flat object") from None
    except msgspec.ValidationError:
        raise RowError(
            "invalid_score", "a number is too large for a double; write a finite number or null"
        ) from None
    except msgspec.DecodeError as error:
        if _has_lone_surrogate(decoded):
            raise RowError(
                "lone_surrogate", r"a \ud800-\udfff escape has no partner, so it is no character; remove it"
            ) from None
        raise RowError("invalid_json", f"{error}; write one JSON object a line") from None
    if not isinstance(row, dict):
        raise RowError("invalid_json", f"holds {_name(row)}; a row is a JSON object")
    return row


def _has_lone_surrogate(text: str) -> bool:
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False


def is_given(row: Row, field: str) -> bool:
    """Whether a row has a field that is not null."""
    return row.get(field) is not None


def text(row: Row, field: str) -> str:
    """A field that must be a string."""
    return as_text(require(row, field), f'"{field}"')


def require(row: Row, field: str) -> Any:
    """A field that must be there."""
    if not is_given(row, field):
        raise RowError("missing_field", f'has no "{field}"; found {_fields(row)}')
    return row[field]


def as_text(value: Any, place: str) -> str:
    """A string, or an error that names the place."""
    if not isinstance(value, str):
        raise RowError("wrong_type", f"{place} is {_name(value)}; write a string")
    return value


def as_list(value: Any, place: str) -> list[Any]:
    """A list, or an error that names the place."""
    if not isinstance(value, list):
        raise RowError("wrong_type", f"{place} is {_name(value)}; write a list")
    return value


def as_object(value: Any, place: str, form: str) -> dict[str, Any]:
    """An object of the form that is named, or an error that names the place."""
    if not isinstance(value, dict):
        raise RowError("wrong_type", f"{place} is {_name(value)}; write {form}")
    return value


def as_messages(value: Any, place: str) -> tuple[Message, ...]:
    """A list of ``{"role", "content"}`` objects; other keys of a message are not read."""
    return tuple(_message(item, f"{place}[{index}]") for index, item in enumerate(as_list(value, place)))


def _message(value: Any, place: str) -> Message:
    message = as_object(value, place, '{"role": ..., "content": ...}')
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        raise RowError("wrong_type", f"{place}.role is {_shown(role)}; it is one of {', '.join(_ROLES)}")
    return Message(cast(Role, role), as_text(content, f"{place}.content"))


def as_score(value: Any, place: str) -> float | None:
    """A finite number, or null where a response has no score."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowError("invalid_score", f"{place} is {_shown(value)}; write a finite number or null")
    if not -_LARGEST_SCORE <= value <= _LARGEST_SCORE:
        raise RowError(
            "invalid_score", f"{place} lies beyond ±{_LARGEST_SCORE:g} or is NaN; write a finite number"
        )
    return float(value)


def row_name(row: Row, field: str, default: str) -> str:
    """An id or a subset: a string or whole number, else the default where the row has none."""
    value = row.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError("wrong_type", f'"{field}" is {_name(value)}; write a string')
    name = str(value)
    if "\x00" in name:
        raise RowError("nul_character", rf'"{field}" contains \u0000; remove it')
    if not 0 < len(name) <= _LONGEST_NAME:
        raise RowError(
            "wrong_type", f'"{field}" has {len(name)} characters; write between 1 and {_LONGEST_NAME}'
        )
    return name


def check_conversation(conversation: Conversation) -> None:
    """The rules for a usable sample, whatever its format.

    Responses in the middle of a ranking may repeat one another; the best and the worst must differ.
    """
    prompt, responses = conversation
    if not any(message.content.strip() for message in prompt):
        raise RowError("empty_prompt", "the prompt has no text; give the question that was asked")
    if len(responses) < 2:
        noun = "entry" if len(responses) == 1 else "entries"
        raise RowError(
            "too_few_responses", f'"responses" has {len(responses)} {noun}; ranking needs at least 2'
        )
    for rank, response in enumerate(responses):
        if not response.text.strip():
            raise RowError(
                "empty_response",
                f"response {rank + 1} of {len(responses)} (best first) has no text; remove it",
            )
    if any("\x00" in part for part in (*(m.content for m in prompt), *(r.text for r in responses))):
        raise RowError("nul_character", r"the text contains \u0000, which pages cannot show; remove it")
    if responses[0].text == responses[-1].text:
        raise RowError(
            "identical_responses", "the best and the worst response are the same text; nothing to prefer"
        )


def _fields(row: Row) -> str:
    shown = ", ".join(f'"{name[:40]}"' for name in list(row)[:8])
    return shown + (", ..." if len(row) > 8 else "") if row else "no fields"


def _shown(value: Any) -> str:
    return f'"{value[:40]}"' if isinstance(value, str) else _name(value)


def _name(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _NAMES.get(type(value), "an object")
