"""omega by the share of the gradient, and the warnings about it."""

from __future__ import annotations

import math

import pytest

from deft_engine.errors import DataError
from deft_engine.omega import omega_for_share, share_warnings


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


@pytest.mark.parametrize("share", [1e-4, 0.03, 0.5, None])
def test_a_share_in_between_needs_no_word(share: float | None) -> None:
    assert share_warnings(1.0, share) == []


def test_a_warning_names_the_number_that_would_do() -> None:
    (weak,) = share_warnings(2.5e-6, 4e-8)  # the paper's omega as measured in docs/decisions
    assert "omega 2.5e-06 has no effect" in weak
    assert "4e-08 of the base loss's gradient" in weak
    assert "an omega of about 1.9" in weak
    (strong,) = share_warnings(10.0, 0.6)
    assert "takes over" in strong
    assert "an omega of about 0.5" in strong
    assert "here" not in share_warnings(0.0, 0.0)[0]
