"""What every reader of files makes: numbered rows, each an object or the reason why it is none."""

from __future__ import annotations

from typing import NamedTuple

from deft_engine.data.validate import Row, RowError, decode_row


class ReadRow(NamedTuple):
    """A row of an upload, decoded, or what is wrong with it."""

    number: int
    """1-based: of the line, blank ones counted, or of the row where the file is not made of lines."""
    content: Row | RowError


def read_json(number: int, data: bytes) -> ReadRow:
    """A row from its JSON text."""
    try:
        return ReadRow(number, decode_row(data))
    except RowError as error:
        return ReadRow(number, error)


def too_long(number: int, limit: int) -> ReadRow:
    """A row that is not read, since it is larger than ``limit`` bytes."""
    return ReadRow(
        number,
        RowError("line_too_long", f"longer than {limit} bytes; shorten it or raise DEFT_MAX_LINE_BYTES"),
    )
