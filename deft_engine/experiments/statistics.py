"""Figures of arms with intervals and paired tests: a bootstrap over samples, with seeds as blocks.

A resample draws prompts, the same for all arms and seeds: a prompt that is drawn brings each arm's answers of
all its seeds. A difference is taken within a seed and averaged over seeds (Koehn 2004, over blocks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 2_000
_SEED = 20_260
_BATCH_DRAWS = 2_000_000  # prompts drawn at a time: 16 MB each for positions and weights


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic with its 95% percentile interval, and how often resamples fall on each side of zero."""

    value: float
    interval: tuple[float, float] | None
    """None where there is one sample alone."""
    p_value: float | None
    """Two-sided, of "the statistic is 0": twice the smaller share of resamples on one side of it."""


@dataclass(slots=True)
class Bootstrap:
    """Statistics of sums over samples, all computed on the same resamples."""

    samples: int
    _columns: list[Floats] = field(default_factory=list)
    _statistics: list[Callable[[Floats], Floats]] = field(default_factory=list)

    def columns(self, values: Floats) -> slice:
        """Take part in every resample: ``[samples]`` or ``[samples, columns]``; where their sums will be."""
        start = sum(column.shape[1] for column in self._columns)
        self._columns.append(values.reshape(self.samples, -1))
        return slice(start, start + self._columns[-1].shape[1])

    def add(self, statistic: Callable[[Floats], Floats]) -> int:
        """A statistic of the sums ``[..., columns]``; the number of its estimate."""
        self._statistics.append(statistic)
        return len(self._statistics) - 1

    def estimates(self) -> list[Estimate]:
        """Of each statistic, in the order in which they were added."""
        table = np.concatenate(self._columns, axis=1)
        observed = self._of_sums(table.sum(axis=0))
        if self.samples < 2:
            return [Estimate(float(value), None, None) for value in observed]
        from scipy.stats import bootstrap  # takes longer to import than the rest of the service

        def resampled(positions: npt.NDArray[np.int64], axis: int = -1) -> Floats:
            return self._of_sums(_weights(positions, self.samples) @ table)

        found: Any = bootstrap(
            (np.arange(self.samples),),
            resampled,
            n_resamples=RESAMPLES,
            batch=max(1, _BATCH_DRAWS // self.samples),
            vectorized=True,
            method="percentile",
            confidence_level=CONFIDENCE,
            rng=np.random.default_rng(_SEED),
        )
        low, high = found.confidence_interval
        p_values = _two_sided(found.bootstrap_distribution)
        return [
            Estimate(float(value), (float(low[i]), float(high[i])), float(p_values[i]))
            for i, value in enumerate(observed)
        ]

    def _of_sums(self, sums: Floats) -> Floats:
        """``[statistics, ...]``."""
        return np.stack([statistic(sums) for statistic in self._statistics])


def corpus_bleu(sums: Floats) -> Floats:
    """Corpus BLEU, 0 to 100, of summed counts ``[..., 10]`` (see ``evaluators.bleu.corpus_counts``).

    As sacrebleu's default: an order without a match counts as half a match, the next one as a quarter
    (smoothing ``exp``); without an n-gram of some order BLEU is 0.
    """
    lengths, references = sums[..., 0], sums[..., 1]
    matches, totals = sums[..., 2:6], sums[..., 6:10]
    missing = np.cumsum(matches == 0, axis=-1)
    smoothed = np.where(matches == 0, 0.5**missing, matches)
    precisions = np.divide(smoothed, totals, out=np.zeros_like(smoothed), where=totals > 0)
    none = (matches == 0).all(axis=-1) | (totals == 0).any(axis=-1)
    mean_log = np.log(np.where(none[..., None], 1.0, precisions)).mean(axis=-1)
    brevity = np.exp(np.minimum(0.0, 1 - references / np.maximum(lengths, 1)))
    return np.asarray(np.where(none, 0.0, 100 * brevity * np.exp(mean_log)))


def perplexity(sums: Floats) -> Floats:
    """Perplexity of summed ``[..., 2]``: negative log-probability and tokens."""
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(sums[..., 0] / sums[..., 1]))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): each step down, never smaller than the one before."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _weights(positions: npt.NDArray[np.int64], samples: int) -> Floats:
    """How often each sample was drawn, ``[resamples, samples]``, from positions ``[resamples, samples]``."""
    drawn = np.atleast_2d(positions)
    shifted = drawn + np.arange(len(drawn))[:, None] * samples
    counts = np.bincount(shifted.ravel(), minlength=drawn.shape[0] * samples)
    weights: Floats = counts.astype(np.float64).reshape(*positions.shape[:-1], samples)
    return weights


def _two_sided(distribution: Floats) -> Floats:
    """``[statistics]`` from ``[statistics, resamples]``; one more is counted, so that none is 0."""
    below, above = (distribution <= 0).sum(axis=-1), (distribution >= 0).sum(axis=-1)
    return np.asarray(np.minimum(1.0, 2 * (1 + np.minimum(below, above)) / (1 + distribution.shape[-1])))
