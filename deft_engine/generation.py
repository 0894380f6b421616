"""Stage ``generate``: greedy answers, decoded in batches of prompts of similar length (section 4.3)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from deft_engine.data.generations import answered, write_generations
from deft_engine.data.samples import read_index, read_samples
from deft_engine.data.selection import choose, pick
from deft_engine.errors import ModelError
from deft_engine.models import device, load_policy, positions
from deft_engine.stages import GenerateSpec
from deft_engine.templates import TURN_TAGS, FixedTemplate, cut_prompt, render_prompt, resolve_template
from deft_engine.tokenizer import load_tokenizer
from deft_engine.types import Sample

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from deft_engine.run import StageContext


def run(context: StageContext[GenerateSpec]) -> dict[str, Any]:
    """Answer the chosen samples' prompts; a stopped run goes on behind its last whole batch."""
    spec, uri = context.spec, context.inputs["model"]
    samples_path = context.path("samples")
    chosen = choose(len(read_index(samples_path).ids), spec.samples, spec.seed)
    samples = list(pick(read_samples(samples_path), chosen))
    decoder = Decoder.load(uri, spec)
    prompts = [decoder.encode(sample) for sample in samples]
    progress = _Progress.resume(context.work / "generated.jsonl")
    context.events.progress(len(progress.responses), len(samples))
    for batch in length_batches(prompts, spec.batch_size):
        if progress.has(batch):
            continue
        context.stop.check()
        started = time.monotonic()
        answers = decoder.answer([prompts[index] for index in batch], interrupt=context.stop.check)
        seconds = time.monotonic() - started
        progress.add(batch, answers, seconds)
        done, tokens = len(progress.responses), sum(answer.tokens for answer in answers)
        context.events.metrics(done, {"generate/tokens_per_second": tokens / seconds})
        context.events.progress(done, len(samples))
    write_generations(
        context.out / "generations.jsonl",
        (answered(sample, progress.responses[index]) for index, sample in enumerate(samples)),
    )
    return {"samples": len(samples), "tokens": progress.tokens, "seconds": round(progress.seconds, 3)}


def length_batches(prompts: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Positions of prompts in batches of similar length, the longest first: what does not fit fails soon."""
    order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
    for start in range(0, len(order), size):
        yield order[start : start + size]


@dataclass(frozen=True, slots=True)
class Answer:
    """A decoded response and the number of tokens it took."""

    text: str
    tokens: int


class Decoder:
    """A policy and how it is prompted. Decoding is greedy, whatever its own generation settings say."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        template: FixedTemplate,
        max_prompt_length: int,
        max_new_tokens: int,
    ) -> None:
        """Keep prompt and answer within the model's positions.

        Raises:
            ModelError: the model has fewer positions than an answer may have tokens.
        """
        limit = positions(model)
        if limit <= max_new_tokens:
            raise ModelError(
                f"the model has {limit} positions, no more than max_new_tokens ({max_new_tokens})",
                hint="lower evaluation.max_new_tokens",
            )
        self._model = model
        self._tokenizer = tokenizer
        self._template = template
        self._max_prompt = min(max_prompt_length, limit - max_new_tokens)
        self._pad: int = tokenizer.pad_token_id
        self._ends = _end_tokens(model, tokenizer)
        self._config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            eos_token_id=sorted(self._ends),
            pad_token_id=self._pad,
        )
        model.generation_config = self._config  # else generate() fills in the model's penalties

    @classmethod
    def load(cls, uri: str, spec: GenerateSpec) -> Decoder:
        """The decoder of the model at ``uri``, on this machine's device."""
        tokenizer = load_tokenizer(uri)
        template = resolve_template(spec.template, uri, tokenizer)
        model = load_policy(uri, spec.dtype).to(device())
        return cls(model, tokenizer, template, spec.max_prompt_length, spec.max_new_tokens)

    def encode(self, sample: Sample) -> list[int]:
        """The sample's prompt as token ids, cut on the left."""
        ids = render_prompt(self._tokenizer, sample.prompt, self._template)
        return cut_prompt(ids, self._max_prompt, self._tokenizer)

    @torch.inference_mode()
    def answer(
        self, prompts: Sequence[Sequence[int]], interrupt: Callable[[], None] = lambda: None
    ) -> list[Answer]:
        """Greedy continuations, each up to EOS or a new turn.

        Args:
            prompts: Token ids; the batch is padded on the left.
            interrupt: Called after each token; it may raise to give up.
        """
        width = max(map(len, prompts))
        padded = [[self._pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        where = self._model.device
        output = self._model.generate(
            torch.tensor(padded, device=where),  # [batch, width]
            attention_mask=torch.tensor(mask, device=where),
            generation_config=self._config,
            stopping_criteria=StoppingCriteriaList(
                [_TurnBegins(self._tokenizer, TURN_TAGS[self._template], width, interrupt)]
            ),
        )
        return [self._read(row) for row in output[:, width:].tolist()]

    def _read(self, row: list[int]) -> Answer:
        """The text of one row of new tokens: without EOS and what follows, without the next turn."""
        end = next((place for place, token in enumerate(row) if token in self._ends), None)
        ids = row[:end]
        while end is None and ids and ids[-1] == self._pad:  # behind the beginning of a new turn
            ids.pop()
        text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for tag in TURN_TAGS[self._template]:
            text = text.partition(tag)[0]
        if self._template == "hh":
            text = text.removeprefix(" ")  # what separates the answer from "Assistant:"
        return Answer(text, len(ids) + (end is not None))


class _TurnBegins(StoppingCriteria):  # type: ignore[misc]
    """A row is done when its new text contains the beginning of a turn."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        tags: Sequence[str],
        width: int,
        interrupt: Callable[[], None],
    ) -> None:
        self._tokenizer = tokenizer
        self._tags = tags
        self._width = width
        self._interrupt = interrupt
        self._tail = 4 + max((len(tag.encode()) for tag in tags), default=0)  # a token is a byte at least

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        """``input_ids``: ``[batch, prompt + new]``; returns ``[batch]`` bool."""
        self._interrupt()
        done = [False] * input_ids.shape[0]
        if self._tags:
            start = max(self._width, input_ids.shape[1] - self._tail)
            tails = self._tokenizer.batch_decode(input_ids[:, start:], skip_special_tokens=True)
            done = [any(tag in tail for tag in self._tags) for tail in tails]
        return torch.tensor(done, device=input_ids.device)


class _Progress:
    """Answers so far, in a file that grows by a line a batch; an unfinished last line is dropped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.responses: dict[int, str] = {}
        self.tokens = 0
        self.seconds = 0.0

    @classmethod
    def resume(cls, path: Path) -> _Progress:
        """What an earlier attempt left, or nothing."""
        progress = cls(path)
        whole = 0
        if path.exists():
            with path.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):
                        whole += len(line)
                        progress._count(json.loads(line))
            with path.open("ab") as file:
                file.truncate(whole)
        return progress

    def has(self, batch: Sequence[int]) -> bool:
        """Whether all of a batch is done."""
        return all(index in self.responses for index in batch)

    def add(self, batch: Sequence[int], answers: Sequence[Answer], seconds: float) -> None:
        """Keep a batch."""
        entry = {
            "responses": {str(index): answer.text for index, answer in zip(batch, answers, strict=True)},
            "tokens": sum(answer.tokens for answer in answers),
            "seconds": seconds,
        }
        with self._path.open("ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")
        self._count(entry)

    def _count(self, entry: dict[str, Any]) -> None:
        self.responses |= {int(index): text for index, text in entry["responses"].items()}
        self.tokens += entry["tokens"]
        self.seconds += entry["seconds"]


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokenizer's EOS and those that the model came with (chat models end turns with their own)."""
    own = model.generation_config.eos_token_id
    listed = own if isinstance(own, list) else [own]
    return {int(token) for token in (tokenizer.eos_token_id, *listed) if token is not None}
