"""Geometry of a report's figures: numbers in, coordinates out; the template draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

WIDTH, HEIGHT = 360.0, 120.0  # of a figure's plane, in SVG units
_MOST_BUCKETS = 240  # of a curve; each keeps its least and its greatest value

Points = Sequence[tuple[int, float]]  # (step, value), by ascending step


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric over the steps."""

    name: str
    path: str
    """The ``points`` of an SVG polyline."""
    first_step: int
    last_step: int
    least: float
    greatest: float
    last: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle of one level."""

    level: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Scores of a subset, stacked by level, with the cuts of A and C."""

    subset: str
    n: int
    bars: tuple[Bar, ...]
    cuts: tuple[tuple[str, float], ...]
    """Level and x of its cut."""
    low: float
    high: float
    tallest: int


def curve(name: str, points: Points) -> Curve | None:
    """The curve through the finite points, thinned; None where fewer than two are finite."""
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    if len(finite) < 2:
        return None
    values = [value for _, value in finite]
    least, greatest = min(values), max(values)
    first, last = finite[0][0], finite[-1][0]
    x_scale = WIDTH / max(1, last - first)
    y_scale = HEIGHT / ((greatest - least) or 1.0)
    path = " ".join(
        f"{(step - first) * x_scale:.1f},{HEIGHT - (value - least) * y_scale:.1f}"
        for step, value in _thinned(finite)
    )
    return Curve(name, path, first, last, least, greatest, values[-1])


def histogram(subset: str, content: Mapping[str, Any]) -> Histogram:
    """From an entry of ``grading.json``."""
    edges, counts = content["edges"], content["counts"]
    low, high = edges[0], edges[-1]
    x_scale = WIDTH / ((high - low) or 1.0)
    tallest = max(map(sum, zip(*counts.values(), strict=True)))
    y_scale = HEIGHT / max(1, tallest)
    bars: list[Bar] = []
    for bin_number, (left, right) in enumerate(pairwise(edges)):
        top = HEIGHT
        for level in sorted(counts, reverse=True):  # C lowest, A on top
            height = counts[level][bin_number] * y_scale
            if height:
                top -= height
                bars.append(Bar(level, (left - low) * x_scale, top, (right - left) * x_scale, height))
    cuts = tuple(
        (level, (content[key] - low) * x_scale)
        for level, key in (("A", "cut_a"), ("C", "cut_c"))
        if content[key] is not None
    )
    return Histogram(subset, content["n"], tuple(bars), cuts, low, high, tallest)


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Of each bucket its least and its greatest value, so that no peak is lost."""
    size = math.ceil(len(points) / _MOST_BUCKETS)
    if size <= 2:
        return points
    kept: list[tuple[int, float]] = []
    for start in range(0, len(points), size):
        bucket = points[start : start + size]
        extremes = {min(bucket, key=lambda point: point[1]), max(bucket, key=lambda point: point[1])}
        kept += sorted(extremes)
    return kept
