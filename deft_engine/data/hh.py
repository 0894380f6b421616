r"""HH-RLHF transcripts: ``\n\nHuman: ...\n\nAssistant: ...``.

The prompt of a pair is everything up to and including the last ``\n\nAssistant:`` that both sides share. A
paragraph without a tag belongs to the turn before it. Text is kept byte for byte but for the one space that
separates a tag from its text.
"""

from __future__ import annotations

import re

from deft_engine.data.validate import Conversation, Row, RowError, text
from deft_engine.types import Message, Response, Role

ASSISTANT_TAG = "\n\nAssistant:"
_HUMAN_TAG = "\n\nHuman:"
_TAG = re.compile(r"\n\n(Human|Assistant):")
_ROLES: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}


def read(row: Row) -> Conversation:
    """A row with two transcripts, ``chosen`` and ``rejected``."""
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    for field, transcript in (("chosen", chosen), ("rejected", rejected)):
        if not is_transcript(transcript):
            raise RowError(
                "unparseable_transcript",
                f'"{field}" starts with {transcript[:30]!r}; a transcript starts with '
                rf'"\n\nHuman:" and has a "\n\nAssistant:" turn',
            )
    if chosen == rejected:
        raise RowError("identical_responses", "chosen and rejected are the same text; nothing to prefer")
    boundary = _last_shared_tag(chosen, rejected)
    if boundary < 0:
        raise RowError(
            "no_shared_prompt",
            "chosen and rejected differ before the first Assistant turn; both must answer the same prompt",
        )
    end = boundary + len(ASSISTANT_TAG)
    responses = (Response(without_separator(chosen[end:])), Response(without_separator(rejected[end:])))
    return parse_turns(chosen[:boundary]), responses


def _last_shared_tag(chosen: str, rejected: str) -> int:
    """Where the last Assistant tag stands up to whose end both texts are equal; -1 without one."""
    boundary = chosen.rfind(ASSISTANT_TAG)
    while boundary >= 0 and not rejected.startswith(chosen[: boundary + len(ASSISTANT_TAG)]):
        boundary = chosen.rfind(ASSISTANT_TAG, 0, boundary)
    return boundary


def is_transcript(transcript: str) -> bool:
    """Whether the text starts with a tag and has an Assistant turn."""
    return transcript.startswith((_HUMAN_TAG, ASSISTANT_TAG)) and ASSISTANT_TAG in transcript


def is_transcript_prompt(prompt: str) -> bool:
    """Whether the text is a transcript that waits for the assistant's answer."""
    return prompt.startswith((_HUMAN_TAG, ASSISTANT_TAG)) and prompt.endswith(ASSISTANT_TAG)


def parse_turns(transcript: str) -> tuple[Message, ...]:
    """The turns of a transcript that starts with a tag, or is empty."""
    parts = _TAG.split(transcript)[1:]  # tag, text, tag, text, ...
    return tuple(
        Message(_ROLES[tag], without_separator(content))
        for tag, content in zip(parts[::2], parts[1::2], strict=True)
    )


def without_separator(content: str) -> str:
    """Text behind a tag without the one space that separates them."""
    return content.removeprefix(" ")
