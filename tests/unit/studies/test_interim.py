"""Boundaries of interim looks against Jennison and Turnbull (1999), and by simulation."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from app.studies.interim import alphas, crossing, limits

# "Group Sequential Methods with Applications to Clinical Trials", tables 2.1 and 2.3, alpha 0.05.
POCOCK = {1: 1.960, 2: 2.178, 3: 2.289, 4: 2.361, 5: 2.413, 10: 2.555}
OBRIEN_FLEMING = {1: 1.960, 2: 1.977, 3: 2.004, 4: 2.024, 5: 2.040, 10: 2.087}


@pytest.mark.parametrize(("analyses", "constant"), POCOCK.items())
def test_pococks_constants_are_the_published_ones(analyses: int, constant: float) -> None:
    assert limits(analyses, "pocock", 0.05) == pytest.approx([constant] * analyses, abs=6e-4)


@pytest.mark.parametrize(("analyses", "constant"), OBRIEN_FLEMING.items())
def test_obrien_and_flemings_constants_are_the_published_ones(analyses: int, constant: float) -> None:
    expected = [constant * sqrt(analyses / look) for look in range(1, analyses + 1)]
    assert limits(analyses, "obrien_fleming", 0.05) == pytest.approx(expected, abs=6e-4 * sqrt(analyses))


def test_crossing_of_two_analyses_is_outside_a_rectangle_of_the_normal_plane() -> None:
    plane = multivariate_normal([0, 0], [[1, sqrt(1 / 2)], [sqrt(1 / 2), 1]])
    inside = plane.cdf([2.2, 1.9], lower_limit=[-2.2, -1.9])
    assert crossing([2.2, 1.9]) == pytest.approx(1 - inside, abs=1e-5)


def test_a_study_looked_at_five_times_errs_in_five_percent() -> None:
    steps = np.random.default_rng(1).standard_normal((200_000, 5))
    z = np.abs(steps.cumsum(axis=1) / np.sqrt(np.arange(1, 6)))
    for boundary in ("pocock", "obrien_fleming"):
        below = 2 * norm.sf(z) < np.array(alphas(5, boundary))
        assert below.any(axis=1).mean() == pytest.approx(0.05, abs=0.002)
