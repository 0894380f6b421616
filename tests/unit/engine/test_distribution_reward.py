"""R_dis against eqs 16 and 17 as they are printed, in float64: value and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from deft_engine import distribution_reward as module
from deft_engine.distribution_reward import gradient_share, response_rewards, sample_rewards
from deft_engine.errors import ModelError
from deft_engine.logps import RankedLogps

lengths_table = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3), min_size=1, max_size=3)


class _Wrapped(nn.Module):
    """A head of which the code knows nothing, as a LoRA layer would be."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    @property
    def weight(self) -> Tensor:
        return self.linear.weight

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.linear(hidden)
        return logits


def make(lengths: list[list[int]], hidden_size: int, seed: int) -> RankedLogps:
    ranks = max(map(len, lengths))
    generator = torch.Generator().manual_seed(seed)
    cells = [
        row * ranks + rank
        for row, sample in enumerate(lengths)
        for rank, length in enumerate(sample)
        for _ in range(length)
    ]
    counts = torch.tensor([sample + [0] * (ranks - len(sample)) for sample in lengths])
    hidden = torch.randn(len(cells), hidden_size, generator=generator, dtype=torch.float64)
    return RankedLogps(
        policy=torch.zeros(counts.shape, dtype=torch.float64),
        lengths=counts,
        mask=counts > 0,
        hidden=hidden.requires_grad_(),
        cells=torch.tensor(cells),
    )


def difference(vocabulary: int, seed: int) -> Tensor:
    """Q_diff as eq 14 makes it: one distribution minus another."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.rand(2, vocabulary, generator=generator, dtype=torch.float64)
    q = q / q.sum(dim=1, keepdim=True)
    return q[0] - q[1]


def printed(logps: RankedLogps, head: nn.Linear, q_diff: Tensor) -> Tensor:
    """``[batch, ranks]``: eq 17 of eq 16, by loops over responses, time steps and the vocabulary's tensor."""
    result = []
    for cell in range(logps.lengths.numel()):
        states = logps.hidden[logps.cells == cell]
        if not len(states):
            result.append(torch.zeros((), dtype=torch.float64))
            continue
        logits = states @ head.weight.T + (head.bias if head.bias is not None else 0.0)
        log_q = torch.stack([row - torch.logsumexp(row, dim=0) for row in logits])
        average = log_q.sum(dim=0) / len(states)  # eq 16
        result.append(sum(q_diff[i] * average[i] for i in range(len(q_diff))))  # eq 17
    return torch.stack(result).view(logps.lengths.shape)


@settings(deadline=None, max_examples=40)
@given(
    lengths=lengths_table,
    hidden=st.integers(2, 6),
    vocabulary=st.integers(3, 12),
    bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_identity_and_plain_form_are_equations_16_and_17(
    lengths: list[list[int]], hidden: int, vocabulary: int, bias: bool, seed: int
) -> None:
    logps = make(lengths, hidden, seed)
    head = nn.Linear(hidden, vocabulary, bias=bias, dtype=torch.float64)
    q_diff = difference(vocabulary, seed)
    variables = [logps.hidden, *head.parameters()]
    expected = printed(logps, head, q_diff)
    weights = torch.linspace(0.5, 1.5, expected.numel(), dtype=torch.float64).view_as(expected)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), variables)
    for form in (head, _Wrapped(head)):
        rewards = response_rewards(logps, form, q_diff, "normalised")
        torch.testing.assert_close(rewards, expected, rtol=0, atol=1e-12)
        gradients = torch.autograd.grad((rewards * weights).sum(), variables)
        torch.testing.assert_close(gradients, expected_gradients, rtol=0, atol=1e-12)


def test_raw_counts_which_sum_to_something_follow_the_definition() -> None:
    logps = make([[5, 3], [4]], 4, 6)
    head = nn.Linear(4, 9, dtype=torch.float64)
    counts = torch.arange(-3, 6, dtype=torch.float64) * 7
    assert counts.sum() != 0
    expected = printed(logps, head, counts)
    rewards = response_rewards(logps, head, counts, "counts")
    torch.testing.assert_close(rewards, expected, rtol=0, atol=1e-10)
    assert not torch.allclose(response_rewards(logps, head, counts, "normalised"), expected)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logps = make([[5, 3], [4]], 4, 1)
    head = _Wrapped(nn.Linear(4, 9, dtype=torch.float64))
    whole = response_rewards(logps, head, difference(9, 1), "normalised")
    monkeypatch.setattr(module, "chunk_rows", lambda vocabulary: 2)
    torch.testing.assert_close(
        response_rewards(logps, head, difference(9, 1), "normalised"), whole, rtol=0, atol=1e-14
    )


def test_vocabulary_rows_beyond_the_tokenizer_count_nothing() -> None:
    logps = make([[5, 3], [4]], 4, 2)
    wide = nn.Linear(4, 16, dtype=torch.float64)
    q_diff = difference(9, 2)
    explicit = torch.cat([q_diff, torch.zeros(7, dtype=torch.float64)])
    torch.testing.assert_close(
        response_rewards(logps, wide, q_diff, "normalised"),
        printed(logps, wide, explicit),
        rtol=0,
        atol=1e-12,
    )


def test_a_tokenizer_larger_than_the_head_is_refused() -> None:
    with pytest.raises(ModelError, match="9 tokens, the model's head only 8"):
        response_rewards(
            make([[2]], 4, 3), nn.Linear(4, 8, dtype=torch.float64), difference(9, 3), "normalised"
        )


def test_chosen_takes_rank_0_and_all_the_mean_over_responses() -> None:
    logps = make([[5, 3, 2], [4]], 4, 4)
    head = nn.Linear(4, 9, bias=False, dtype=torch.float64)
    each = printed(logps, head, difference(9, 4))
    chosen = sample_rewards(logps, head, difference(9, 4), "normalised", "chosen")
    every = sample_rewards(logps, head, difference(9, 4), "normalised", "all")
    torch.testing.assert_close(chosen, each[:, 0])
    torch.testing.assert_close(every, torch.stack([each[0].mean(), each[1, 0]]))


def test_gradient_share_is_a_ratio_of_norms_and_keeps_the_graph() -> None:
    logps = make([[3], [2]], 4, 5)
    head = nn.Linear(4, 9, bias=False, dtype=torch.float64)
    q_diff = difference(9, 5)
    r_dis = sample_rewards(logps, head, q_diff, "normalised", "chosen").mean()
    base_loss = 0.5 * logps.hidden.pow(2).sum()
    # d base / dh = h; d R_dis / dh_t = W^T Q_diff / T, and a mean over two samples
    direction = (head.weight.T @ q_diff).norm() / 2
    term = (3 * (direction / 3) ** 2 + 2 * (direction / 2) ** 2) ** 0.5
    share = gradient_share(logps, base_loss, r_dis)
    assert share == pytest.approx((term / logps.hidden.norm()).item())
    (base_loss - share * r_dis).backward()
    assert logps.hidden.grad is not None
