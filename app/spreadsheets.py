"""CSV that a spreadsheet shows as it is: no text can start a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_text(header: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> str:
    """A table with its header (RFC 4180); None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_plain(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue()


def _plain(text: str) -> str:
    """A leading apostrophe makes a spreadsheet show the cell as text (OWASP, "CSV Injection")."""
    return "'" + text if text.lstrip(" ").startswith(_FORMULA_STARTS) else text
