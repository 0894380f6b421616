"""``ledger.jsonl``: every row of an upload that is not used, and why."""

from __future__ import annotations

from typing import BinaryIO

import msgspec

from deft_engine.types import Rejection


def write_rejection(ledger: BinaryIO, rejection: Rejection) -> None:
    """Append an entry."""
    row = {"line": rejection.line, "code": rejection.code, "detail": rejection.detail}
    ledger.write(msgspec.json.encode(row) + b"\n")
