"""The prompt of a row: a string, an HH transcript that ends with its Assistant tag, or a list of messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from deft_engine.data import hh
from deft_engine.data.validate import Row, RowError, as_messages, as_text, is_given
from deft_engine.types import Message

Verbatim = Callable[[str], str]


def prompt_field(row: Row, fields: Sequence[str]) -> str | None:
    """The first of the fields that the row has."""
    return next((field for field in fields if is_given(row, field)), None)


def read_prompt(row: Row, fields: Sequence[str]) -> tuple[tuple[Message, ...], Verbatim]:
    """The prompt's messages, and what turns a response string into the response's text.

    Behind a transcript's ``Assistant:`` tag one separating space is taken off a response; any other is kept
    as it is.
    """
    field = prompt_field(row, fields)
    if field is None:
        names = " or ".join(f'"{name}"' for name in fields)
        raise RowError("missing_field", f"has no {names}; give the question that was asked")
    value = row[field]
    if isinstance(value, list):
        return as_messages(value, f'"{field}"'), str
    prompt = as_text(value, f'"{field}"')
    if hh.is_transcript_prompt(prompt):
        return hh.parse_turns(prompt.removesuffix(hh.ASSISTANT_TAG)), hh.without_separator
    return (Message("user", prompt),), str
