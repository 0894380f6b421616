"""RRHF against eqs 7 to 10, pair by pair in plain Python."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_engine.losses import RRHF
from tests.unit.engine.loss_tables import Entry, Table, assert_value_and_gradient, ranked, tables


@settings(deadline=None, max_examples=60)
@given(table=tables)
def test_rrhf_is_equations_8_to_10(table: Table) -> None:
    logps = ranked(table)
    output = RRHF()(logps)
    values, gradients, rank_losses = [], [], []
    for sample in table:
        gradient = [0.0] * len(sample)
        rank_loss = 0.0
        for j, better in enumerate(sample):
            for k in range(j + 1, len(sample)):
                hinge = sample[k].score - better.score  # r_k < r_j
                if hinge > 0:
                    rank_loss += hinge
                    gradient[k] += 1 / sample[k].tokens
                    gradient[j] -= 1 / better.tokens
        gradient[0] -= 1  # eq 9
        values.append(rank_loss - sample[0].pi)
        gradients.append(gradient)
        rank_losses.append(rank_loss)
    assert_value_and_gradient(output.loss, logps.policy, values, gradients)
    assert output.metrics["rrhf/rank_loss"].tolist() == pytest.approx(rank_losses)
    assert output.metrics["nll_loss"].tolist() == [-sample[0].pi for sample in table]


def test_figures_are_of_length_normalised_scores() -> None:
    table = [
        [Entry(-8.0, 0, 4, 0), Entry(-3.0, 0, 3, 0), Entry(-9.0, 0, 3, 0)],  # scores -2, -1, -3
        [Entry(-1.0, 0, 2, 0), Entry(-2.0, 0, 1, 0)],  # scores -0.5, -2
    ]
    metrics = {name: values.tolist() for name, values in RRHF()(ranked(table)).metrics.items()}
    assert metrics == {
        "rewards/chosen": [-2.0, -0.5],
        "rewards/rejected": [-3.0, -2.0],
        "rewards/margins": [1.0, 1.5],
        "rewards/accuracies": pytest.approx([2 / 3, 1.0]),
        "logps/chosen": [-8.0, -1.0],
        "logps/rejected": [-9.0, -2.0],
        "rrhf/rank_loss": [1.0, 0.0],
        "nll_loss": [8.0, 1.0],
    }


@settings(deadline=None, max_examples=25)
@given(table=tables, shift=st.floats(-5, 5))
def test_only_differences_of_scores_count_in_eq_8(table: Table, shift: float) -> None:
    shifted = [[e._replace(pi=e.pi + shift * e.tokens) for e in sample] for sample in table]
    plain, moved = (RRHF()(ranked(t)).metrics["rrhf/rank_loss"] for t in (table, shifted))
    torch.testing.assert_close(moved, plain, rtol=1e-9, atol=1e-9)
