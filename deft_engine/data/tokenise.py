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


def left_truncated(
    sample: Sample,
    tokenizer: PreTrainedTokenizerBase,
    template: FixedTemplate,
    max_length: int,
    order: Sequence[int],
) -> list[TokenisedSample]:
    """A sample's ids with each sequence cut on its left, as OpenAssistant's reward models were trained.

    Where all sequences fit, one sample that holds the prompt once. Else each response is a sample of its own,
    since their prompts begin at different places; where the response alone is too long, its first token kept
    stands for the prompt.

    Args:
        order: As in ``tokenise``.
    """
    prompt = render_prompt(tokenizer, sample.prompt, template)
    responses = [
        [*render_response(tokenizer, sample.responses[index].text, template), tokenizer.eos_token_id]
        for index in order
    ]
    if len(prompt) + max(map(len, responses)) <= max_length:
        return [TokenisedSample(sample.id, sample.subset, prompt, responses, truncated=0)]
    cut = []
    for response in responses:
        kept = [*prompt, *response][-max_length:]
        start = max(1, len(kept) - len(response))
        truncated = int(len(response) > max_length)
        cut.append(TokenisedSample(sample.id, sample.subset, kept[:start], [kept[start:]], truncated))
    return cut


def _last_user_turn(messages: Sequence[Message]) -> Sequence[Message]:
    users = [index for index, message in enumerate(messages) if message.role == "user"]
    return messages[users[-1] :] if users else messages[-1:]


def _cut_response(ids: list[int], room: int) -> list[int]:
    return ids if len(ids) <= room else [*ids[: room - 1], ids[-1]]
