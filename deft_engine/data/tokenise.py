"""A sample as token ids: prompt and responses are segments of their own, so their boundary is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deft_engine.templates import FixedTemplate, cut_prompt, render_prompt, render_response
from deft_engine.types import Message, Sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class TokenisedSample:
    """Token ids of a prompt and its responses, best first; each response ends in its only EOS."""

    id: str
    subset: str
    prompt: list[int]
    responses: list[list[int]]
    truncated: int
    """Responses that were cut on the right."""

    @property
    def tokens(self) -> int:
        """Tokens of the sample in a packed batch: the prompt once, and every response."""
        return len(self.prompt) + sum(map(len, self.responses))


def tokenise(
    sample: Sample,
    tokenizer: PreTrainedTokenizerBase,
    template: FixedTemplate,
    max_length: int,
    order: Sequence[int],
) -> TokenisedSample:
    """A sample's ids, none of its sequences (prompt + one response) longer than ``max_length`` tokens.

    The prompt gives way first: it is cut on the left so that the longest response fits, but not into its last
    user turn, as long as that turn leaves the responses a quarter of ``max_length`` (128 of 512 in Appendix
    A.1). Then responses are cut on the right, keeping EOS, and counted. The cut depends on all responses of
    the sample, not on ``order``, so the same prompt is seen whichever of them are asked for.

    Args:
        order: Indices into ``sample.responses``: which ones, and in which order.
    """
    eos = tokenizer.eos_token_id
    responses = [[*render_response(tokenizer, r.text, template), eos] for r in sample.responses]
    prompt = render_prompt(tokenizer, sample.prompt, template)
    longest = max(map(len, responses))
    if len(prompt) + longest > max_length:
        share = min(longest, max_length // 4)
        last_turn = len(render_prompt(tokenizer, _last_user_turn(sample.prompt), template))
        limit = max(max_length - longest, min(last_turn, max_length - share))
        prompt = cut_prompt(prompt, limit, tokenizer)
    room = max_length - len(prompt)
    return TokenisedSample(
        id=sample.id,
        subset=sample.subset,
        prompt=prompt,
        responses=[_cut_response(responses[index], room) for index in order],
        truncated=sum(len(responses[index]) > room for index in order),
    )


def _last_user_turn(messages: Sequence[Message]) -> Sequence[Message]:
    users = [index for index, message in enumerate(messages) if message.role == "user"]
    return messages[users[-1] :] if users else messages[-1:]


def _cut_response(ids: list[int], room: int) -> list[int]:
    return ids if len(ids) <= room else [*ids[: room - 1], ids[-1]]
