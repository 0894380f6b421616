"""Planned interim looks: the alpha of each, so that all looks together err in 5% (ADR 90)."""

from __future__ import annotations

from functools import lru_cache
from math import sqrt

import numpy as np

from app.studies.design import Boundary
from app.studies.power import ALPHA

_POINTS = 201  # of the grid over which the statistic's density is carried from look to look


@lru_cache
def alphas(analyses: int, boundary: Boundary, alpha: float = ALPHA) -> tuple[float, ...]:
    """The two-sided alpha of each of ``analyses`` equally spaced analyses, the last of which is the end."""
    from scipy.stats import norm  # takes longer to import than the rest of the service

    return tuple(float(2 * norm.sf(limit)) for limit in limits(analyses, boundary, alpha))


def limits(analyses: int, boundary: Boundary, alpha: float) -> list[float]:
    """How large |z| must be at each analysis: constant (Pocock), or c sqrt(K / k) (O'Brien and Fleming)."""
    from scipy.optimize import brentq

    def shape(constant: float) -> list[float]:
        if boundary == "pocock":
            return [constant] * analyses
        return [constant * sqrt(analyses / look) for look in range(1, analyses + 1)]

    constant = brentq(lambda tried: crossing(shape(tried)) - alpha, 1.0, 6.0, xtol=1e-7)
    return shape(float(constant))


def crossing(limits_of_z: list[float]) -> float:
    """Probability that |z| passes its limit at any of the equally spaced analyses when nothing differs.

    Armitage, McPherson and Rowe (1969): with s_k = sqrt(k) z_k a sum of k standard normal steps, the density
    of the sums that have not passed is carried from one analysis to the next by Gauss-Legendre quadrature.
    """
    from scipy.stats import norm

    nodes, weights = np.polynomial.legendre.leggauss(_POINTS)
    inside, mass = np.array([0.0]), np.array([1.0])  # the sums that go on, and their weight
    passed = 0.0
    for look, limit in enumerate(limits_of_z, start=1):
        reach = limit * sqrt(look)
        passed += float(mass @ (norm.sf(reach - inside) + norm.cdf(-reach - inside)))
        points = reach * nodes
        density = norm.pdf(points[:, None] - inside[None, :]) @ mass
        inside, mass = points, reach * weights * density
    return passed
