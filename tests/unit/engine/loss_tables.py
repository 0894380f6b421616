"""Ragged tables of log-probabilities, as a batch gives them to a loss."""

from __future__ import annotations

import random
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from deft_engine.logps import RankedLogps


class Entry(NamedTuple):
    """A response: log-probabilities under policy and reference, tokens, reward."""

    pi: float
    ref: float
    tokens: int
    reward: float

    @property
    def score(self) -> float:
        """s_j of eq 7."""
        return self.pi / self.tokens


Table = list[list[Entry]]  # per sample and rank


def draw_table(sizes: list[int], seed: int) -> Table:
    """A seeded table of samples with so many responses, rewards in falling order."""
    chance = random.Random(seed)
    table = []
    for size in sizes:
        rewards = sorted((chance.uniform(-4, 4) for _ in range(size)), reverse=True)
        table.append(
            [
                Entry(chance.uniform(-60, -0.1), chance.uniform(-60, -0.1), chance.randint(1, 40), r)
                for r in rewards
            ]
        )
    return table


tables = st.builds(draw_table, st.lists(st.integers(2, 25), min_size=1, max_size=4), st.integers(0, 2**32))
"""1 to 4 samples of 2 to 25 responses."""


def padded(rows: list[list[float]], width: int) -> Tensor:
    """The rows as one float64 tensor, zeros behind them."""
    return torch.tensor([row + [0.0] * (width - len(row)) for row in rows], dtype=torch.float64)


def ranked(table: Table, extra: int = 0) -> RankedLogps:
    """The table as tensors, with ``extra`` masked ranks beyond what is needed."""
    width = max(map(len, table)) + extra
    lengths = padded([[float(entry.tokens) for entry in sample] for sample in table], width).long()
    return RankedLogps(
        policy=padded([[entry.pi for entry in sample] for sample in table], width).requires_grad_(),
        reference=padded([[entry.ref for entry in sample] for sample in table], width),
        rewards=padded([[entry.reward for entry in sample] for sample in table], width),
        lengths=lengths,
        mask=lengths > 0,
        hidden=torch.zeros(0, 1),
        cells=torch.zeros(0, dtype=torch.int64),
    )


def assert_value_and_gradient(
    loss: Tensor, policy: Tensor, values: list[float], gradients: list[list[float]]
) -> None:
    """Both as expected sample by sample; a masked rank has no gradient at all."""
    expected = torch.tensor(values, dtype=torch.float64)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-9, atol=1e-10)
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    torch.testing.assert_close(gradient, padded(gradients, policy.shape[1]), rtol=1e-9, atol=1e-10)
    for row, sample in zip(gradient, gradients, strict=True):
        assert row[len(sample) :].eq(0).all()
