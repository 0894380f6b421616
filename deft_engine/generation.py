"""Stage ``generate``: greedy answers to the chosen samples' prompts, window by window (section 4.3)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from deft_engine.data.generations import answered, write_generations
from deft_engine.data.samples import StoredSamples
from deft_engine.data.selection import Selected, choose
from deft_engine.decoding import decoding
from deft_engine.errors import ModelError
from deft_engine.models import device, load_policy, positions
from deft_engine.resumable import windows
from deft_engine.stages import DecodingSpec, GenerateSpec
from deft_engine.templates import TURN_TAGS, FixedTemplate, cut_prompt, render_prompt, resolve_template
from deft_engine.tokenizer import load_tokenizer
from deft_engine.types import Counted, Generation, Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from deft_engine.run import StageContext

Decoding = TypeVar("Decoding", bound=DecodingSpec)


class HasPrompt(Protocol):
    """A sample, or whatever else asks something."""

    @property
    def prompt(self) -> Sequence[Message]: ...


Asked = TypeVar("Asked", bound=HasPrompt)

_REPORTS = 16  # of the progress within a window


@dataclass(frozen=True, slots=True)
class Answer:
    """A decoded response and the number of tokens it took."""

    text: str
    tokens: int


def run(context: StageContext[GenerateSpec]) -> dict[str, Any]:
    """Answer the chosen samples' prompts; write ``generations.jsonl`` in the samples' order.

    Raises:
        ModelError: the model cannot be used.
        Interrupted: asked to stop; the windows that are done are kept.
    """
    started = time.monotonic()
    stored = StoredSamples(context.path("samples"))
    samples = Selected(stored, choose(len(stored), context.spec.samples, context.spec.seed))
    decoder = Decoder.load(context.inputs["model"], context.spec)
    tokens = 0

    def generations() -> Iterator[Generation]:
        nonlocal tokens
        for sample, answer in answer_samples(decoder, samples, context):
            tokens += answer.tokens
            yield answered(sample, answer.text)

    write_generations(context.out / "generations.jsonl", generations())
    return {
        "samples": len(samples),
        "tokens": tokens,
        "decoding": decoder.decoding,
        "seconds": round(time.monotonic() - started, 3),
    }


def answer_samples(
    decoder: Decoder, samples: Counted[Asked], context: StageContext[Decoding], name: str = "answers"
) -> Iterator[tuple[Asked, Answer]]:
    """Each of the samples with its answer, in order; the same text whether or not it was interrupted.

    Args:
        name: Tells apart the kept windows of several loops of one stage.

    Raises:
        Interrupted: asked to stop; the windows that are done are kept.
    """
    done, total = 0, len(samples)

    def answer_window(window: list[Asked], start: int) -> list[tuple[str, int]]:
        started = time.monotonic()
        answers: dict[int, Answer] = {}
        for index, answer in decoder.answers([decoder.encode(s) for s in window], context.stop.check):
            answers[index] = answer
            if len(answers) < len(window) and len(answers) % max(1, len(window) // _REPORTS) == 0:
                context.events.progress(start + len(answers), total)
        tokens = sum(answer.tokens for answer in answers.values())
        rate = tokens / (time.monotonic() - started)
        context.events.metrics(start + len(window), {"generate/tokens_per_second": rate})
        return [(answers[index].text, answers[index].tokens) for index in range(len(window))]

    context.events.progress(0, total)
    for window, results in windows(samples, context.work, name, answer_window, context.world):
        done += len(window)
        context.events.progress(done, total)
        for sample, (text, tokens) in zip(window, results, strict=True):
            yield sample, Answer(text, tokens)


class Decoder:
    """A policy and how it is prompted. Decoding is greedy, whatever its own generation settings say."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        template: FixedTemplate,
        max_prompt_length: int,
        max_new_tokens: int,
        batch_size: int,
    ) -> None:
        """Keep prompt and answer within the model's positions.

        Raises:
            ModelError: the model has fewer positions than an answer may have tokens.
        """
        limit = positions(model)
        if limit <= max_new_tokens:
            raise ModelError(
                f"the model has {limit} positions, no more than max_new_tokens ({max_new_tokens})",
                hint="lower max_new_tokens",
            )
        self._tokenizer = tokenizer
        self._template = template
        self._tags = TURN_TAGS[template]
        self._tail = 4 + max(
            (len(tag.encode()) for tag in self._tags), default=0
        )  # a token is a byte at least
        self._max_prompt = min(max_prompt_length, limit - max_new_tokens)
        self._ends = _end_tokens(model, tokenizer)
        longest = self._max_prompt + max_new_tokens
        self._decoding = decoding(model, batch_size, longest, max_new_tokens, tokenizer.pad_token_id)

    @classmethod
    def load(cls, uri: str, spec: DecodingSpec) -> Decoder:
        """The decoder of the model at ``uri``, on this machine's device."""
        tokenizer = load_tokenizer(uri)
        template = resolve_template(spec.template, uri, tokenizer)
        model = load_policy(uri, spec.dtype).to(device())
        return cls(model, tokenizer, template, spec.max_prompt_length, spec.max_new_tokens, spec.batch_size)

    @property
    def decoding(self) -> str:
        """How the model is run, see ``deft_engine.decoding``."""
        return self._decoding.name

    def encode(self, asked: HasPrompt) -> list[int]:
        """The prompt as token ids, cut on the left."""
        ids = render_prompt(self._tokenizer, asked.prompt, self._template)
        return cut_prompt(ids, self._max_prompt, self._tokenizer)

    def answers(
        self, prompts: Sequence[Sequence[int]], interrupt: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[int, Answer]]:
        """Index and greedy continuation of each prompt, up to EOS or a new turn, in the order they end.

        Args:
            prompts: Token ids.
            interrupt: Called before each step; it may raise to give up.
        """
        for index, ids in self._decoding.answers(prompts, self._ended, interrupt):
            yield index, self._read(ids)

    def _ended(self, new: Sequence[int]) -> bool:
        """Whether the newest token is an EOS or completes the beginning of a new turn."""
        if new[-1] in self._ends:
            return True
        if not self._tags:
            return False
        tail = self._tokenizer.decode(new[-self._tail :], skip_special_tokens=True)
        return any(tag in tail for tag in self._tags)

    def _read(self, new: Sequence[int]) -> Answer:
        """The text of new tokens, without EOS and without the next turn."""
        ids = new[:-1] if new[-1] in self._ends else new
        text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for tag in self._tags:
            text = text.partition(tag)[0]
        if self._template == "hh":
            text = text.removeprefix(" ")  # what separates the answer from "Assistant:"
        return Answer(text, len(new))


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokenizer's EOS and those that the model came with (chat models end turns with their own)."""
    own = model.generation_config.eos_token_id
    listed = own if isinstance(own, list) else [own]
    return {int(token) for token in (tokenizer.eos_token_id, *listed) if token is not None}
