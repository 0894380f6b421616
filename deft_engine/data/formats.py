"""The formats of uploads: which there are, and how a row's fields tell them apart."""

from __future__ import annotations

from collections.abc import Callable

from deft_engine.data import hh, pairwise, ranked
from deft_engine.data.validate import Conversation, Row, is_given

READERS: dict[str, Callable[[Row], Conversation]] = {
    "hh_rlhf": hh.read,
    "pairwise": pairwise.read,
    "ranked": ranked.read,
}
"""Format name -> what reads a row of it, raising ``RowError``."""

EXPECTED = (
    '"chosen" and "rejected" transcripts (hh_rlhf); "prompt", "chosen", "rejected" (pairwise); '
    'or "prompt", "responses" (ranked)'
)


def tell_format(row: Row) -> str | None:
    """The format that a row's fields stand for; None where they fit none."""
    if is_given(row, "responses") and any(is_given(row, field) for field in ranked.PROMPT_FIELDS):
        return "ranked"
    if not (is_given(row, "chosen") and is_given(row, "rejected")):
        return None
    sides = (row["chosen"], row["rejected"])
    if any(isinstance(side, list) for side in sides):
        return "pairwise"
    without_prompt = not (is_given(row, "prompt") or is_given(row, "messages"))
    whole = all(isinstance(side, str) and hh.is_transcript(side) for side in sides)
    return "hh_rlhf" if without_prompt or whole else "pairwise"
