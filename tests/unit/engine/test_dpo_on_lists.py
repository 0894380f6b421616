"""DPO's forms for lists, and label smoothing, against formulas in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from deft_engine.losses import DPO
from tests.unit.engine.loss_tables import Entry, Table, assert_value_and_gradient, ranked, tables


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def rewards_of(sample: list[Entry], beta: float) -> list[float]:
    """The rewards that eq 6 compares."""
    return [beta * (entry.pi - entry.ref) for entry in sample]


def of_pairs(
    rewards: list[float], pairs: list[tuple[int, int]], smoothing: float
) -> tuple[float, list[float]]:
    """Mean over pairs of the expected -log sigma when a label is wrong with probability ``smoothing``."""
    loss, slopes = 0.0, [0.0] * len(rewards)
    for i, j in pairs:
        right, wrong = sigmoid(rewards[i] - rewards[j]), sigmoid(rewards[j] - rewards[i])
        loss += -(1 - smoothing) * math.log(right) - smoothing * math.log(wrong)
        slope = smoothing * right - (1 - smoothing) * wrong
        slopes[i] += slope / len(pairs)
        slopes[j] -= slope / len(pairs)
    return loss / len(pairs), slopes


@pytest.mark.parametrize("pairs", ["best_worst", "all"])
@settings(deadline=None, max_examples=40)
@given(table=tables, beta=st.floats(0.01, 2), smoothing=st.floats(0, 0.49), weight=st.floats(0, 1))
def test_pairs_are_equation_5_with_smoothed_labels(
    pairs: str, table: Table, beta: float, smoothing: float, weight: float
) -> None:
    logps = ranked(table)
    fields = {"beta": beta, "pairs": pairs, "label_smoothing": smoothing, "sft_weight": weight}
    output = DPO.model_validate(fields)(logps)
    values, gradients, right = [], [], []
    for sample in table:
        rewards, last = rewards_of(sample, beta), len(sample) - 1
        every = [(i, j) for i in range(last) for j in range(i + 1, last + 1)]
        chosen = every if pairs == "all" else [(0, last)]
        loss, slopes = of_pairs(rewards, chosen, smoothing)
        values.append(loss - weight * sample[0].pi)
        gradients.append([beta * slope - weight * (i == 0) for i, slope in enumerate(slopes)])
        right.append(sum(rewards[i] > rewards[j] for i, j in chosen) / len(chosen))
    assert_value_and_gradient(output.loss, logps.policy, values, gradients)
    assert output.metrics["rewards/accuracies"].tolist() == pytest.approx(right)


@settings(deadline=None, max_examples=40)
@given(table=tables, beta=st.floats(0.01, 2))
def test_plackett_luce_is_the_likelihood_of_the_ranking(table: Table, beta: float) -> None:
    logps = ranked(table)
    output = DPO(beta=beta, pairs="plackett_luce", sft_weight=0)(logps)
    values, gradients = [], []
    for sample in table:
        rewards = rewards_of(sample, beta)
        likelihood, slopes = 0.0, [0.0] * len(sample)
        for k in range(len(sample)):
            largest = max(rewards[k:])
            total = sum(math.exp(reward - largest) for reward in rewards[k:])
            likelihood += rewards[k] - largest - math.log(total)
            slopes[k] -= 1
            for i in range(k, len(sample)):
                slopes[i] += math.exp(rewards[i] - largest) / total
        values.append(-likelihood)
        gradients.append([beta * slope for slope in slopes])
    assert_value_and_gradient(output.loss, logps.policy, values, gradients)


@settings(deadline=None, max_examples=25)
@given(table=tables)
def test_on_pairs_all_three_forms_agree(table: Table) -> None:
    pairs = [[sample[0], sample[-1]] for sample in table]
    forms = [DPO.model_validate({"pairs": p}) for p in ("best_worst", "all", "plackett_luce")]
    first, *others = [form(ranked(pairs)).loss for form in forms]
    for loss in others:
        torch.testing.assert_close(loss, first, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pairs", ["best_worst", "all", "plackett_luce"])
@settings(deadline=None, max_examples=15)
@given(table=tables, shift=st.floats(-20, 20))
def test_shifting_a_samples_log_ratios_changes_nothing(pairs: str, table: Table, shift: float) -> None:
    """As shifting all rewards: the partition function of the reward cancels."""
    shifted = [[entry._replace(ref=entry.ref + shift) for entry in sample] for sample in table]
    loss = DPO.model_validate({"pairs": pairs})
    torch.testing.assert_close(loss(ranked(shifted)).loss, loss(ranked(table)).loss, rtol=1e-9, atol=1e-9)


def test_smoothing_a_ranking_is_refused() -> None:
    with pytest.raises(ValidationError, match="set label_smoothing to 0"):
        DPO(pairs="plackett_luce", label_smoothing=0.1)


def test_only_the_best_and_the_worst_are_computed_where_no_more_is_needed() -> None:
    order = [2, 0, 1, 3]
    assert list(DPO().needed(order)) == [2, 3]
    assert list(DPO(pairs="all").needed(order)) == order
    assert list(DPO(pairs="plackett_luce").needed(order)) == order
