"""omega by the share of the gradient, and the warnings about it."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from deft_engine.errors import DataError
from deft_engine.omega import DistributionTerm, omega_for_share, share_warnings


def test_the_share_is_met_on_average() -> None:
    assert omega_for_share(0.03, [0.01, 0.03]) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("unit_shares", "zero"),
    [([0.0, 0.0], "distribution reward"), ([math.inf], "base loss"), ([math.nan], "base loss")],
)
def test_no_omega_gives_a_share_of_nothing(unit_shares: list[float], zero: str) -> None:
    with pytest.raises(DataError, match=f"gradient of the {zero} is zero") as raised:
        omega_for_share(0.03, unit_shares)
    assert "number" in raised.value.hint


@pytest.mark.parametrize("shares", [[1e-4], [0.03, 0.5], []])
def test_shares_in_between_need_no_word(shares: list[float]) -> None:
    assert share_warnings(1.0, shares) == []


def test_a_share_that_grows_is_told_of_though_its_mean_is_small() -> None:
    (warning,) = share_warnings(2.0, [0.03] * 9 + [0.8])
    assert "takes over" in warning
    assert "up to 0.8" in warning


def test_a_held_share_is_come_back_to_in_small_steps() -> None:
    term = DistributionTerm(
        torch.zeros(3), "normalised", "chosen", held_share=0.03, omega=1.0, measure_every=1
    )
    per_omega = 0.3  # ten times too much, whatever the batch
    shares = []
    for _ in range(12):
        shares.append(term.omega * per_omega)
        term._correct(shares[-1])
    assert all(before / after <= 2.0 for before, after in pairwise(shares))
    assert shares[-1] == pytest.approx(0.03, rel=0.01)
    term._correct(0.0)
    assert term.omega * per_omega == pytest.approx(0.03, rel=0.01)


def test_a_warning_names_the_number_that_would_do() -> None:
    (weak,) = share_warnings(2.5e-6, [4e-8])  # the paper's omega as measured in docs/decisions
    assert "omega 2.5e-06 has no effect" in weak
    assert "up to 4e-08 of the base loss's gradient" in weak
    assert "an omega of about 1.9" in weak
    (strong,) = share_warnings(10.0, [0.6])
    assert "takes over" in strong
    assert "an omega of about 0.5" in strong
    assert "here" not in share_warnings(0.0, [0.0])[0]
