"""Greedy decoding of many prompts: in slots that are filled again where the model allows it, else plain.

Whether a model may be decoded in slots is no list of names: a probe compares it once with the model as
transformers runs it. Either way an answer is the same text as ``generate`` gives in float32.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from deft_engine.errors import ModelError
from deft_engine.heads import output_head
from deft_engine.models import as_it_computes
from deft_engine.packed_attention import CannotPack
from deft_engine.slot_attention import DecodingStep, SlotCache, slot_attention

Ended = Callable[[Sequence[int]], bool]
"""Whether new tokens are a whole answer. Asked after each token."""

PROMPT_TOKENS = 2_048
"""Tokens of prompts that begin in one step, unless a single one has more."""

_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Of the probe: the largest difference over the largest logit. A key not seen gives about 1."""


@dataclass(slots=True)
class _Row:
    """A sequence in a slot."""

    index: int
    prompt: Sequence[int]
    new: list[int] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """Its tokens in the cache: the newest one is not there yet."""
        return len(self.prompt) + max(len(self.new) - 1, 0)


class SlotDecoding:
    """Prompts wait, the longest first; each takes a slot as soon as one is free, and ends when it ends."""

    name: Literal["slots"] = "slots"

    def __init__(self, model: PreTrainedModel, slots: int, max_new_tokens: int) -> None:
        self._model = model
        self._head = output_head(model)
        self._slots = slots
        self._max_new_tokens = max_new_tokens

    @torch.inference_mode()
    def answers(
        self, prompts: Sequence[Sequence[int]], ended: Ended, interrupt: Callable[[], None]
    ) -> Iterator[tuple[int, list[int]]]:
        """Index and new tokens of each prompt's answer, in the order in which they end.

        Args:
            interrupt: Called before each step; it may raise to give up.
        """
        waiting = deque(sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index)))
        slots = min(self._slots, len(prompts))
        cache = SlotCache(slots, max(map(len, prompts), default=0) + self._max_new_tokens)
        rows: list[_Row] = []
        while waiting or rows:
            interrupt()
            running = len(rows)
            rows += _admitted(waiting, prompts, slots - running)
            for row, token in zip(rows, self._next(rows, running, cache), strict=True):
                row.new.append(token)
            for place in reversed(range(len(rows))):
                row = rows[place]
                if len(row.new) == self._max_new_tokens or ended(row.new):
                    yield row.index, row.new
                    last = rows.pop()
                    if last is not row:
                        cache.move(len(rows), place, last.kept)
                        rows[place] = last

    def _next(self, rows: Sequence[_Row], running: int, cache: SlotCache) -> list[int]:
        """The next token of each row; those from ``running`` on begin."""
        logits = step_logits(
            self._model,
            self._head,
            cache,
            [(row.new[-1], row.kept) for row in rows[:running]],
            [row.prompt for row in rows[running:]],
        )
        chosen: list[int] = logits.argmax(dim=-1).tolist()
        return chosen


class PlainDecoding:
    """Transformers' own ``generate``, in batches of similar length, padded on the left."""

    name: Literal["plain"] = "plain"

    def __init__(self, model: PreTrainedModel, batch_size: int, max_new_tokens: int, pad: int) -> None:
        self._model = model
        self._batch_size = batch_size
        self._pad = pad
        self._config = GenerationConfig(
            max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, pad_token_id=pad
        )
        model.generation_config = self._config  # else generate() fills in the model's penalties

    @torch.inference_mode()
    def answers(
        self, prompts: Sequence[Sequence[int]], ended: Ended, interrupt: Callable[[], None]
    ) -> Iterator[tuple[int, list[int]]]:
        """As ``SlotDecoding.answers``."""
        for batch in length_batches(prompts, self._batch_size):
            width = max(len(prompts[index]) for index in batch)
            padded = [[self._pad] * (width - len(prompts[i])) + list(prompts[i]) for i in batch]
            mask = [[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in batch]
            ends = _Ends(ended, width, len(batch), interrupt)
            output = self._model.generate(
                torch.tensor(padded, device=self._model.device),  # [batch, width]
                attention_mask=torch.tensor(mask, device=self._model.device),
                generation_config=self._config,
                stopping_criteria=StoppingCriteriaList([ends]),
            )
            for index, row, length in zip(batch, output[:, width:].tolist(), ends.lengths, strict=True):
                yield index, row[:length]


Decoding = SlotDecoding | PlainDecoding


def decoding(
    model: PreTrainedModel, batch_size: int, longest: int, max_new_tokens: int, pad: int
) -> Decoding:
    """How a model's answers are decoded, ``batch_size`` at a time.

    Args:
        longest: Tokens of the longest sequence that may come, answer included. Beyond a sliding window there
            is more to forget than slots know of.
        pad: Token that pads prompts where the model is run plainly.
    """
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    if (window is None or longest <= window) and _decodes_in_slots(model):
        return SlotDecoding(model, batch_size, max_new_tokens)
    return PlainDecoding(model, batch_size, max_new_tokens, pad)


def length_batches(prompts: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Positions of prompts in batches of similar length, the longest first: what does not fit fails soon."""
    order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def step_logits(
    model: PreTrainedModel,
    head: torch.nn.Module,
    cache: SlotCache,
    running: Sequence[tuple[int, int]],
    prompts: Sequence[Sequence[int]],
) -> Tensor:
    """``[running + prompts, vocab]``: logits of the next token of each sequence.

    Args:
        running: The newest token and its place, of the sequences in the first rows of the cache.
        prompts: Sequences that begin, in the rows behind them.

    Raises:
        CannotPack: some of the layers do not attend by the step, or not by it alone.
    """
    weight: Tensor = model.get_input_embeddings().weight
    ids = [token for token, _ in running] + [token for prompt in prompts for token in prompt]
    places = [place for _, place in running]
    positions = places + [place for prompt in prompts for place in range(len(prompt))]
    step = DecodingStep.of(cache, places, tuple(map(len, prompts)), weight)
    with slot_attention(model):
        output = model.base_model(
            input_ids=torch.tensor([ids], device=weight.device),
            position_ids=torch.tensor([positions], device=weight.device),
            use_cache=False,
            decoding_step=step,
        )
    layers = model.config.get_text_config().num_hidden_layers
    if step.layers != layers:
        raise CannotPack(f"{step.layers} of {layers} layers of {type(model).__name__} took the decoding step")
    ends = torch.tensor([1] * len(running) + [len(prompt) for prompt in prompts], device=weight.device)
    logits: Tensor = head(output.last_hidden_state[0, ends.cumsum(0) - 1])
    return logits.float()


def _admitted(waiting: deque[int], prompts: Sequence[Sequence[int]], free: int) -> list[_Row]:
    """Take prompts that begin now off the queue."""
    rows: list[_Row] = []
    tokens = 0
    while waiting and len(rows) < free:
        prompt = prompts[waiting[0]]
        tokens += len(prompt)
        if rows and tokens > PROMPT_TOKENS:
            break
        rows.append(_Row(waiting.popleft(), prompt))
    return rows


def _decodes_in_slots(model: PreTrainedModel) -> bool:
    """Whether steps of several sequences, one of which begins later, give the logits of whole sequences."""
    embeddings = model.get_input_embeddings().weight
    vocabulary = min(60, embeddings.shape[0]) - 3
    first, second, third = (
        [3 + (7 * (start + index)) % vocabulary for index in range(count)]
        for start, count in ((0, 7), (11, 5), (23, 4))
    )
    cache = SlotCache(3, 8)
    try:
        head = output_head(model)
        with as_it_computes(model):
            steps = [
                step_logits(model, head, cache, [], [first[:5], second[:3]]),
                step_logits(model, head, cache, [(first[5], 5), (second[3], 3)], [third[:3]]),
                step_logits(model, head, cache, [(first[6], 6), (second[4], 4), (third[3], 3)], []),
            ]
            ids = (first[:5], second[:3], first[:6], second[:4], third[:3], first, second, third)
            plain = torch.cat(
                [
                    model(torch.tensor([each], device=embeddings.device), use_cache=False).logits[:, -1]
                    for each in ids
                ]
            ).float()
    except (CannotPack, ModelError, TypeError, ValueError, RuntimeError):
        return False
    difference = (torch.cat(steps) - plain).abs().max() / plain.abs().max()
    return bool(difference <= _TOLERANCE[embeddings.dtype])


class _Ends(StoppingCriteria):  # type: ignore[misc]
    """Tells ``generate`` which rows have ended, and remembers where."""

    def __init__(self, ended: Ended, width: int, rows: int, interrupt: Callable[[], None]) -> None:
        self._ended = ended
        self._width = width
        self._interrupt = interrupt
        self.lengths: list[int | None] = [None] * rows
        """New tokens of each row that has ended."""

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        """``input_ids``: ``[batch, prompt + new]``; returns ``[batch]`` bool."""
        self._interrupt()
        for row, new in enumerate(input_ids[:, self._width :].tolist()):
            if self.lengths[row] is None and self._ended(new):
                self.lengths[row] = len(new)
        done = [length is not None for length in self.lengths]
        return torch.tensor(done, device=input_ids.device)
