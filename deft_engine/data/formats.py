"""The formats of uploads: which there are, and how a row's fields tell them apart."""

from __future__ import annotations

from collections.abc import Callable

from deft_engine.data import hh, pairwise, pro, ranked, sharegpt, ultrafeedback
from deft_engine.data.validate import Conversation, Row, is_given

READERS: dict[str, Callable[[Row], Conversation]] = {
    "hh_rlhf": hh.read,
    "pairwise": pairwise.read,
    "ranked": ranked.read,
    "pro": pro.read,
    "ultrafeedback": ultrafeedback.read,
    "sharegpt": sharegpt.read,
}
"""Format name -> what reads a row of it, raising ``RowError``."""

EXPECTED = (
    '"chosen" and "rejected" transcripts (hh_rlhf); "prompt", "chosen", "rejected" (pairwise); '
    '"prompt", "responses" (ranked); "prefix", "suffix", "reward", "sft_index" (pro); '
    '"instruction", "completions" (ultrafeedback); "conversations", "chosen", "rejected" (sharegpt); '
    'or "question_id" with "turns" or "choices" (fastchat, for judges)'
)


def tell_format(row: Row) -> str | None:
    """The format that a row's fields stand for; None where they fit none."""
    if is_given(row, "responses") and any(is_given(row, field) for field in ranked.PROMPT_FIELDS):
        return "ranked"
    if is_given(row, "prefix") and is_given(row, "suffix"):
        return "pro"
    if is_given(row, "instruction") and is_given(row, "completions"):
        return "ultrafeedback"
    if not (is_given(row, "chosen") and is_given(row, "rejected")):
        asked = is_given(row, "question_id") and (is_given(row, "turns") or is_given(row, "choices"))
        return "fastchat" if asked else None
    return "sharegpt" if is_given(row, "conversations") else _tell_pair(row)


def _tell_pair(row: Row) -> str:
    sides = (row["chosen"], row["rejected"])
    if any(isinstance(side, list) for side in sides):
        return "pairwise"
    without_prompt = not (is_given(row, "prompt") or is_given(row, "messages"))
    whole = all(isinstance(side, str) and hh.is_transcript(side) for side in sides)
    return "hh_rlhf" if without_prompt or whole else "pairwise"
