"""What a training run reads: samples in a seeded order, tokenised when their batch comes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from deft_engine.data.collate import RankedBatch, collate
from deft_engine.data.tokenise import TokenisedSample, tokenise
from deft_engine.errors import DataError
from deft_engine.spec_sections import TrainingSpec
from deft_engine.templates import FixedTemplate
from deft_engine.types import Sample
from deft_engine.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class RankedSample:
    """A sample to train on and the rank order of its responses."""

    sample: Sample
    order: tuple[int, ...]  # indices into ``sample.responses``, best first
    reference: tuple[float, ...] | None = None  # log-probabilities under the reference, in this order
    rewards: tuple[float, ...] | None = None  # in this order


def known_rewards(sample: Sample, rewards: Sequence[float | None]) -> list[float]:
    """A sample's rewards, in the annotated order, for a method that needs every one.

    Raises:
        DataError: a response has none.
    """
    known = [reward for reward in rewards if reward is not None]
    if len(known) < len(sample.responses):
        missing = next((rank for rank, reward in enumerate(rewards) if reward is None), len(rewards))
        raise DataError(
            f"line {sample.line}: response {missing + 1} of sample {sample.id} has no reward, "
            "and this form of the method needs one of every response",
            hint="give every response a score in the file, or (kind align) name a reward model in "
            "deft.grader; or take a form of the method without rewards",
            code="missing_score",
        )
    return known


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """A micro-batch: packed samples, and reference log-probabilities and rewards where a loss needs them."""

    ranked: RankedBatch
    reference: Tensor | None  # [batch, ranks] float32, 0 where there is no response
    rewards: Tensor | None  # likewise
    counts: bool = True
    """False for a stand-in: there are fewer samples than processes, and this one has to compute something."""

    @property
    def samples(self) -> int:
        """Samples of the batch that count."""
        return len(self.ranked.sample_ids) if self.counts else 0

    def to(self, device: torch.device | str) -> TrainingBatch:
        """The same batch on ``device``."""
        reference = None if self.reference is None else self.reference.to(device)
        rewards = None if self.rewards is None else self.rewards.to(device)
        return replace(self, ranked=self.ranked.to(device), reference=reference, rewards=rewards)


_Item = tuple[TokenisedSample, RankedSample, bool]


class TrainingData(Dataset[_Item]):
    """Ranked samples as a dataset that tokenises on access: 160,000 of them are held as text only.

    The index ``~i`` (below 0) is sample ``i`` as a stand-in, see ``TrainingBatch.counts``.
    """

    def __init__(
        self,
        samples: Sequence[RankedSample],
        tokenizer: PreTrainedTokenizerBase,
        template: FixedTemplate,
        max_length: int,
    ) -> None:
        self._samples = samples
        self._tokenizer = tokenizer
        self._template = template
        self._max_length = max_length

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> _Item:
        ranked = self._samples[index if index >= 0 else ~index]
        tokenised = tokenise(
            ranked.sample, self._tokenizer, self._template, self._max_length, order=ranked.order
        )
        return tokenised, ranked, index >= 0

    def batch(self, indices: Sequence[int]) -> TrainingBatch:
        """The samples at ``indices`` as one batch."""
        return _collate([self[index] for index in indices])

    def loader(self, order: BatchOrder, world: World) -> DataLoader[_Item]:
        """This process's part of the batches in ``order``; draws nothing from the global random state."""
        part = _Part(order, world)
        return DataLoader(self, batch_sampler=part, collate_fn=_trainer_inputs, generator=torch.Generator())


class BatchOrder(Sampler[list[int]]):
    """Micro-batches of an epoch: a permutation that depends on the seed and the epoch alone."""

    def __init__(self, samples: int, training: TrainingSpec) -> None:
        self._samples = samples
        self._training = training
        self.epoch = 0

    def __len__(self) -> int:
        return math.ceil(self._samples / self._training.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        size = self._training.batch_size
        permutation = np.random.default_rng([self._training.seed, self.epoch]).permutation(self._samples)
        for start in range(0, self._samples, size):
            yield permutation[start : start + size].tolist()

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch; the last one may have fewer and smaller micro-batches."""
        return math.ceil(len(self) / self._training.gradient_accumulation)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the run: ``max_steps`` where given, else all epochs."""
        return self._training.max_steps or self._training.epochs * self.steps_per_epoch


class _Part(Sampler[list[int]]):
    """Every ``size``-th sample of each micro-batch; a process without any has the first as a stand-in."""

    def __init__(self, order: BatchOrder, world: World) -> None:
        self._order, self._world = order, world

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._order:
            yield batch[self._world.rank :: self._world.size] or [~batch[0]]


def _trainer_inputs(items: Sequence[_Item]) -> dict[str, TrainingBatch]:
    """A batch in the form that transformers' Trainer hands on: a mapping."""
    return {"batch": _collate(items)}


def _collate(items: Sequence[_Item]) -> TrainingBatch:
    ranked = collate([tokenised for tokenised, _, _ in items])
    return TrainingBatch(
        ranked,
        reference=_column([sample.reference for _, sample, _ in items], ranked.mask),
        rewards=_column([sample.rewards for _, sample, _ in items], ranked.mask),
        counts=items[0][2],
    )


def _column(rows: Sequence[tuple[float, ...] | None], mask: Tensor) -> Tensor | None:
    """A figure per response as ``[batch, ranks]``, or None where the run has no such figure."""
    column = torch.zeros(mask.shape)
    for index, row in enumerate(rows):
        if row is None:
            return None
        column[index, : len(row)] = torch.tensor(row)
    return column
