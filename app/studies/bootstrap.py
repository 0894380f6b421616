"""Sums over units drawn with replacement: what intervals of agreement and of strengths are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 1000
_SEED = 0


def resampled_sums(units: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums [draw, ...] of as many units [unit, ...] as there are, drawn with replacement; the seed is fixed.

    Equal units are drawn as one kind, so that the work grows with the kinds, of which votes make few.
    """
    n = len(units)
    kinds, counts = np.unique(units.reshape(n, -1), axis=0, return_counts=True)
    draws = np.random.default_rng(_SEED).multinomial(n, counts / n, RESAMPLES)
    return np.asarray((draws @ kinds).reshape(RESAMPLES, *units.shape[1:]))
