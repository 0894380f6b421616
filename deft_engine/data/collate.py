"""Samples in one packed row: no padding between them, each prompt once.

The row of two samples, the first with two responses, the second with three::

    ids        p p p a a b b b | q q c c c d e e
    positions  0 1 2 3 4 3 4 5 | 0 1 2 3 4 2 2 3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from deft_engine.data.tokenise import TokenisedSample


@dataclass(frozen=True, slots=True)
class Segments:
    """Where one sample lies in the packed row: its prompt at ``start``, its responses behind it, in order."""

    start: int
    prompt: int  # tokens
    responses: tuple[int, ...]  # tokens of each, EOS included


@dataclass(frozen=True, slots=True)
class RankedBatch:
    """A packed batch. ``tokens`` are those of the row, ``targets`` the response tokens among them."""

    input_ids: Tensor  # [tokens] int64
    position_ids: Tensor  # [tokens] int64; each response continues its prompt
    target_ids: Tensor  # [targets] int64: the responses' tokens, EOS included
    predictors: Tensor  # [targets] int64: the place in the row whose hidden state predicts the target
    cells: Tensor  # [targets] int64: row-major index of the target's response in [batch, ranks]
    ends: Tensor  # [batch, ranks] int64: the place of the response's EOS, 0 where there is no response
    lengths: Tensor  # [batch, ranks] int64: tokens of the response, 0 where there is none
    mask: Tensor  # [batch, ranks] bool: there is a response of this rank
    segments: tuple[Segments, ...]
    sample_ids: tuple[str, ...]
    truncated: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens of the row, prompts counted once."""
        return self.input_ids.shape[0]

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence of a prompt and one response."""
        return max(segment.prompt + max(segment.responses) for segment in self.segments)

    def to(self, device: torch.device | str) -> RankedBatch:
        """The same batch with its tensors on ``device``."""
        tensors: dict[str, Any] = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **tensors)


def collate(samples: Sequence[TokenisedSample]) -> RankedBatch:
    """Pack samples into one row; ragged numbers of responses are masked. Ranks keep the samples' order."""
    segments = _segments(samples)
    ranks = max(len(sample.responses) for sample in samples)
    ids: list[int] = []
    positions: list[int] = []
    targets: list[int] = []
    predictors: list[int] = []
    cells: list[int] = []
    ends = torch.zeros(len(samples), ranks, dtype=torch.int64)
    lengths = torch.zeros(len(samples), ranks, dtype=torch.int64)
    for row, sample in enumerate(samples):
        ids += sample.prompt
        positions += range(len(sample.prompt))
        last_prompt = len(ids) - 1
        for rank, response in enumerate(sample.responses):
            start = len(ids)
            targets += response
            predictors += [last_prompt, *range(start, start + len(response) - 1)]
            cells += [row * ranks + rank] * len(response)
            ids += response
            positions += range(len(sample.prompt), len(sample.prompt) + len(response))
            ends[row, rank] = len(ids) - 1
            lengths[row, rank] = len(response)
    return RankedBatch(
        input_ids=torch.tensor(ids),
        position_ids=torch.tensor(positions),
        target_ids=torch.tensor(targets),
        predictors=torch.tensor(predictors),
        cells=torch.tensor(cells),
        ends=ends,
        lengths=lengths,
        mask=lengths > 0,
        segments=segments,
        sample_ids=tuple(sample.id for sample in samples),
        truncated=tuple(sample.truncated for sample in samples),
    )


def _segments(samples: Sequence[TokenisedSample]) -> tuple[Segments, ...]:
    starts = accumulate((sample.tokens for sample in samples), initial=0)
    return tuple(
        Segments(start, len(sample.prompt), tuple(map(len, sample.responses)))
        for start, sample in zip(starts, samples, strict=False)
    )
