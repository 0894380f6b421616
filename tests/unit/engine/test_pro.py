"""PRO against eqs 7, 9, 11 and 12, and its variant against the published code's rule, in plain Python."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_engine.losses import PRO
from tests.unit.engine.loss_tables import (
    Entry,
    Table,
    assert_value_and_gradient,
    draw_table,
    ranked,
    tables,
)


def round_of(logits: list[float]) -> tuple[float, list[float]]:
    """-log of the first one's share in the exponentials' sum, and its derivatives by the logits."""
    largest = max(logits)
    powers = [math.exp(logit - largest) for logit in logits]
    shares = [power / sum(powers) for power in powers]
    loss = largest + math.log(sum(powers)) - logits[0]
    return loss, [share - (i == 0) for i, share in enumerate(shares)]


def by_hand(sample: list[Entry], weight: float, variant: str) -> tuple[float, list[float], list[float]]:
    """Loss of a sample, its gradient by each log-probability, and the loss of each round."""
    last = len(sample) - 1
    supervised = weight * (last**2 if variant == "reference" else 1)
    gradient = [0.0] * len(sample)
    rounds = []
    for k in range(last):
        temperatures = [1.0] * (len(sample) - k)
        if variant == "reference":
            gaps = [sample[k].reward - other.reward for other in sample[k + 1 :]]
            temperatures = [max(gaps), *gaps]
        loss, slopes = round_of([t * e.score for t, e in zip(temperatures, sample[k:], strict=True)])
        rounds.append(loss)
        for i, (slope, temperature) in enumerate(zip(slopes, temperatures, strict=True), start=k):
            gradient[i] += slope * temperature / sample[i].tokens
    gradient[0] -= supervised
    return sum(rounds) - supervised * sample[0].pi, gradient, rounds


@pytest.mark.parametrize("variant", ["paper", "reference"])
@settings(deadline=None, max_examples=40)
@given(table=tables, weight=st.floats(0, 1))
def test_pro_is_equations_11_and_12_or_the_published_rule(variant: str, table: Table, weight: float) -> None:
    logps = ranked(table)
    output = PRO.model_validate({"variant": variant, "sft_weight": weight})(logps)
    values, gradients, rounds = zip(*(by_hand(sample, weight, variant) for sample in table), strict=True)
    assert_value_and_gradient(output.loss, logps.policy, list(values), list(gradients))
    names = {f"pro/rank_{k}_loss" for k in range(1, max(map(len, table)))}
    assert names == {name for name in output.metrics if name.startswith("pro/")}
    for row, of_sample in enumerate(rounds):
        found = [output.metrics[f"pro/rank_{k}_loss"][row].item() for k in range(1, len(names) + 1)]
        assert found[: len(of_sample)] == pytest.approx(of_sample, rel=1e-9, abs=1e-10)
        assert all(map(math.isnan, found[len(of_sample) :]))


def test_rewards_out_of_order_are_taken_as_they_are() -> None:
    (sample,) = draw_table([6], seed=3)
    rewards = [entry.reward for entry in sample]
    random.Random(1).shuffle(rewards)
    table = [[entry._replace(reward=reward) for entry, reward in zip(sample, rewards, strict=True)]]
    logps = ranked(table)
    value, gradient, _ = by_hand(table[0], 0.05, "reference")
    assert_value_and_gradient(PRO(variant="reference")(logps).loss, logps.policy, [value], [gradient])


@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_scores_far_apart_neither_overflow_nor_vanish(variant: str) -> None:
    far = [Entry(-8000.0, 0.0, 1, 3.0), Entry(-1.0, 0.0, 1, 1.0), Entry(-4000.0, 0.0, 1, 0.0)]
    logps = ranked([far, far[1:]])
    loss = PRO.model_validate({"variant": variant, "sft_weight": 0})(logps).loss
    by_variant = {"paper": (7999.0, 0.0), "reference": (3 * 8000.0 - 2 * 1.0, 0.0)}
    first, second = by_variant[variant]
    assert loss.tolist() == pytest.approx([first, second])
    (gradient,) = torch.autograd.grad(loss.sum(), logps.policy)
    assert gradient.isfinite().all()


@settings(deadline=None, max_examples=25)
@given(table=tables, shift=st.floats(-50, 50))
def test_only_gaps_of_rewards_count(table: Table, shift: float) -> None:
    shifted = [[entry._replace(reward=entry.reward + shift) for entry in sample] for sample in table]
    loss = PRO(variant="reference")
    torch.testing.assert_close(loss(ranked(shifted)).loss, loss(ranked(table)).loss, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=25)
@given(table=tables, shift=st.floats(-5, 5))
def test_only_differences_of_scores_count_in_eq_11(table: Table, shift: float) -> None:
    shifted = [[e._replace(pi=e.pi + shift * e.tokens) for e in sample] for sample in table]
    loss = PRO(sft_weight=0)
    torch.testing.assert_close(loss(ranked(shifted)).loss, loss(ranked(table)).loss, rtol=1e-9, atol=1e-9)


def test_equal_rewards_ask_for_nothing() -> None:
    table = [[entry._replace(reward=2.0) for entry in sample] for sample in draw_table([2, 5], seed=1)]
    logps = ranked(table)
    loss = PRO(variant="reference", sft_weight=0)(logps).loss
    (gradient,) = torch.autograd.grad(loss.sum(), logps.policy)
    assert gradient.eq(0).all()
    assert loss.tolist() == pytest.approx([math.log(2), math.log(math.factorial(5))])


def test_the_variant_reference_without_rewards_says_so() -> None:
    logps = ranked(draw_table([3], seed=0))
    without = type(logps)(logps.policy, logps.lengths, logps.mask, logps.hidden, logps.cells)
    with pytest.raises(ValueError, match="with_rewards"):
        PRO(variant="reference")(without)
    assert PRO()(without).loss.isfinite().all()
