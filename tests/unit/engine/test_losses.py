"""Losses against formulas written from the paper's text, sample by sample, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deft_engine.logps import RankedLogps
from deft_engine.losses import DPO, POLICY_LOSSES, PRO, RRHF, SFT, BradleyTerry, PolicyLoss
from tests.unit.engine.loss_tables import Entry, Table, draw_table, padded, ranked, tables


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def sigmoid(x: float) -> float:
    return math.exp(log_sigmoid(x))


@settings(deadline=None)
@given(table=tables, beta=st.floats(0.01, 2), weight=st.floats(0, 1))
def test_dpo_is_equations_5_6_and_9(table: Table, beta: float, weight: float) -> None:
    logps = ranked(table)
    output = DPO(beta=beta, sft_weight=weight)(logps)
    expected = []
    expected_gradient = torch.zeros_like(logps.policy)
    for index, sample in enumerate(table):
        (pi_1, ref_1, *_), (pi_l, ref_l, *_) = sample[0], sample[-1]
        z = beta * ((pi_1 - ref_1) - (pi_l - ref_l))
        expected.append(-log_sigmoid(z) - weight * pi_1)
        expected_gradient[index, 0] = -beta * sigmoid(-z) - weight  # d(-log sigma(z))/dz = -sigma(-z)
        expected_gradient[index, len(sample) - 1] += beta * sigmoid(-z)
        metrics = {name: values[index].item() for name, values in output.metrics.items()}
        assert metrics == pytest.approx(
            {
                "rewards/chosen": beta * (pi_1 - ref_1),
                "rewards/rejected": beta * (pi_l - ref_l),
                "rewards/accuracies": float(metrics["rewards/margins"] > 0),
                "rewards/margins": z,
                "logps/chosen": pi_1,
                "logps/rejected": pi_l,
            },
            abs=1e-9,
        )
    torch.testing.assert_close(
        output.loss, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10
    )
    (gradient,) = torch.autograd.grad(output.loss.sum(), logps.policy)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-10)


def test_dpo_at_the_reference_is_log_2() -> None:
    table = [[Entry(-5.0, -5.0, 3, 0.0), Entry(-9.0, -9.0, 4, 0.0)]]
    assert DPO(sft_weight=0)(ranked(table)).loss.item() == pytest.approx(math.log(2))


def test_dpo_without_reference_says_so() -> None:
    logps = ranked(draw_table([2], seed=0))
    without = RankedLogps(logps.policy, logps.lengths, logps.mask, logps.hidden, logps.cells)
    with pytest.raises(ValueError, match="with_reference"):
        DPO()(without)


@settings(deadline=None)
@given(table=tables)
def test_sft_is_equation_9(table: Table) -> None:
    logps = ranked(table)
    sums = SFT()(logps).loss
    means = SFT(reduction="mean")(logps).loss
    for index, sample in enumerate(table):
        assert sums[index].item() == pytest.approx(-sample[0].pi)
        assert means[index].item() == pytest.approx(-sample[0].pi / sample[0].tokens)
    (gradient,) = torch.autograd.grad(sums.sum(), logps.policy)
    assert gradient[:, 0].eq(-1).all()
    assert gradient[:, 1:].eq(0).all()


rewards_table = st.lists(st.lists(st.floats(-8, 8), min_size=2, max_size=5), min_size=1, max_size=4)


def bradley_terry(rows: list[list[float]], extra: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    width = max(map(len, rows)) + extra
    rewards = padded(rows, width).requires_grad_()
    mask = torch.tensor([[rank < len(row) for rank in range(width)] for row in rows])
    loss = BradleyTerry()(rewards, mask).loss
    (gradient,) = torch.autograd.grad(loss.sum(), rewards)
    return loss.detach(), gradient, mask


@settings(deadline=None)
@given(rows=rewards_table)
def test_reward_loss_is_equation_1_over_all_pairs(rows: list[list[float]]) -> None:
    loss, gradient, _ = bradley_terry(rows)
    for index, row in enumerate(rows):
        pairs = [(i, j) for i in range(len(row)) for j in range(i + 1, len(row))]
        # eq 1: p(y_i > y_j) = exp(r_i) / (exp(r_i) + exp(r_j))
        terms = [-math.log(math.exp(row[i]) / (math.exp(row[i]) + math.exp(row[j]))) for i, j in pairs]
        assert loss[index].item() == pytest.approx(sum(terms) / len(pairs), abs=1e-10)
        expected = [0.0] * gradient.shape[1]
        for i, j in pairs:
            push = math.exp(row[j]) / (math.exp(row[i]) + math.exp(row[j])) / len(pairs)
            expected[i] -= push
            expected[j] += push
        assert gradient[index].tolist() == pytest.approx(expected, abs=1e-10)


def test_reward_metrics_count_pairs() -> None:
    rewards = torch.tensor([[2.0, 3.0, 1.0], [1.0, 0.5, 0.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    metrics = BradleyTerry()(rewards, mask).metrics
    assert metrics["rewards/accuracies"].tolist() == pytest.approx([2 / 3, 1.0])
    assert metrics["rewards/chosen"].tolist() == [2.0, 1.0]
    assert metrics["rewards/rejected"].tolist() == [1.0, 0.5]
    assert metrics["rewards/margins"].tolist() == [1.0, 0.5]


@settings(deadline=None)
@given(rows=rewards_table, shift=st.floats(-3, 3))
def test_shifting_a_samples_rewards_changes_no_loss(rows: list[list[float]], shift: float) -> None:
    loss, gradient, _ = bradley_terry(rows)
    shifted, shifted_gradient, _ = bradley_terry([[reward + shift for reward in row] for row in rows])
    torch.testing.assert_close(shifted, loss)
    torch.testing.assert_close(shifted_gradient, gradient)


@settings(deadline=None)
@given(rows=rewards_table)
def test_masked_ranks_change_no_reward_loss(rows: list[list[float]]) -> None:
    loss, gradient, _ = bradley_terry(rows)
    wider, wider_gradient, mask = bradley_terry(rows, extra=2)
    torch.testing.assert_close(wider, loss)
    torch.testing.assert_close(wider_gradient[:, : gradient.shape[1]], gradient)
    assert wider_gradient[~mask].eq(0).all()


margin_tables = st.lists(
    st.lists(st.tuples(st.floats(-8, 8), st.floats(-3, 3)), min_size=2, max_size=5), min_size=1, max_size=4
)


@settings(deadline=None)
@given(table=margin_tables, weight=st.floats(0.01, 2))
def test_the_margin_is_the_gap_of_annotated_rewards(
    table: list[list[tuple[float, float]]], weight: float
) -> None:
    width = max(map(len, table))
    rewards = padded([[given for given, _ in row] for row in table], width).requires_grad_()
    annotated = padded([[reward for _, reward in row] for row in table], width)
    mask = torch.tensor([[rank < len(row) for rank in range(width)] for row in table])
    loss = BradleyTerry(margin=weight)(rewards, mask, annotated).loss
    (gradient,) = torch.autograd.grad(loss.sum(), rewards)
    for index, row in enumerate(table):
        pairs = [(i, j) for i in range(len(row)) for j in range(i + 1, len(row))]
        expected, slopes = 0.0, [0.0] * width
        for i, j in pairs:
            # Touvron et al. 2023b, eq 2: -log sigma(r(x, y_c) - r(x, y_r) - m(r))
            x = row[i][0] - row[j][0] - weight * (row[i][1] - row[j][1])
            expected -= log_sigmoid(x) / len(pairs)
            slopes[i] -= sigmoid(-x) / len(pairs)
            slopes[j] += sigmoid(-x) / len(pairs)
        assert loss[index].item() == pytest.approx(expected, abs=1e-10)
        assert gradient[index].tolist() == pytest.approx(slopes, abs=1e-10)


def test_a_margin_without_annotated_rewards_says_so() -> None:
    with pytest.raises(ValueError, match="annotated"):
        BradleyTerry(margin=1.0)(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))


LOSSES: list[PolicyLoss] = [
    SFT(),
    SFT(reduction="mean"),
    DPO(),
    DPO(sft_weight=0.0),
    DPO(pairs="all", label_smoothing=0.1),
    DPO(pairs="plackett_luce"),
    RRHF(),
    PRO(),
    PRO(variant="reference"),
]


def test_every_policy_loss_is_under_the_invariants() -> None:
    assert {type(loss) for loss in LOSSES} == set(POLICY_LOSSES)


def outcome(loss: PolicyLoss, table: Table, extra: int = 0) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Values, gradients of the ranks that the table has, and metrics."""
    logps = ranked(table, extra)
    output = loss(logps)
    (gradient,) = torch.autograd.grad(output.loss.sum(), logps.policy)
    assert gradient[~logps.mask].eq(0).all()
    return output.loss.detach(), gradient[:, : max(map(len, table))], output.metrics


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13, equal_nan=True)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@settings(deadline=None, max_examples=25)
@given(table=tables)
def test_order_of_the_batch_and_masked_ranks_change_nothing(loss: PolicyLoss, table: Table) -> None:
    value, gradient, metrics = outcome(loss, table)
    wider, wider_gradient, wider_metrics = outcome(loss, table, extra=2)
    turned, turned_gradient, turned_metrics = outcome(loss, table[::-1])
    same(wider, value)
    same(wider_gradient, gradient)
    same(turned.flip(0), value)
    same(turned_gradient.flip(0), gradient)
    assert metrics.keys() == wider_metrics.keys() == turned_metrics.keys()
    for name, values in metrics.items():
        assert values.shape == (len(table),)
        assert not values.requires_grad
        same(wider_metrics[name], values)
        same(turned_metrics[name].flip(0), values)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@settings(deadline=None, max_examples=25)
@given(table=tables)
def test_a_batch_is_what_its_samples_are_alone(loss: PolicyLoss, table: Table) -> None:
    value, gradient, metrics = outcome(loss, table)
    for row, sample in enumerate(table):
        alone, alone_gradient, alone_metrics = outcome(loss, [sample])
        same(alone[0], value[row])
        same(alone_gradient[0], gradient[row, : len(sample)])
        for name, values in metrics.items():
            if name in alone_metrics:
                same(alone_metrics[name][0], values[row])
            else:
                assert values[row].isnan()


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_a_loss_needs_no_more_than_it_says(loss: PolicyLoss) -> None:
    """The responses that ``needed`` leaves out, and the inputs that it does not ask for, change nothing."""
    (sample,) = draw_table([7], seed=5)
    value, gradient, _ = outcome(loss, [sample])
    needed = loss.needed(range(7))
    logps = ranked([[sample[rank] for rank in needed]])
    asked = RankedLogps(
        logps.policy, logps.lengths, logps.mask, logps.hidden, logps.cells,
        reference=logps.reference if loss.needs_reference else None,
        rewards=logps.rewards if loss.needs_rewards else None,
    )  # fmt: skip
    output = loss(asked)
    (asked_gradient,) = torch.autograd.grad(output.loss.sum(), logps.policy)
    same(output.loss.detach(), value)
    same(asked_gradient, gradient[:, list(needed)])
