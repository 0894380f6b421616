"""Geometry of a radar picture, as in the paper's Fig. 4: an axis a category of MT-Bench."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RADIUS = 100.0  # of the greatest rating, in SVG units
_GREATEST = 10  # rating
_RINGS = (2, 4, 6, 8, 10)
_LEAST_AXES = 3
_LABEL = 1.1  # radii from the centre


@dataclass(frozen=True, slots=True)
class Axis:
    """A category: where its axis ends and its name stands."""

    name: str
    x: float
    y: float
    label_x: float
    label_y: float
    anchor: str
    """SVG's ``text-anchor`` of the name."""


@dataclass(frozen=True, slots=True)
class Radar:
    """Rings of ratings, axes, and a closed line for each turn or model whose every category has a rating."""

    axes: tuple[Axis, ...]
    rings: tuple[tuple[int, float], ...]
    """Rating and radius."""
    lines: tuple[tuple[str, str], ...]
    """Its name, and the ``points`` of an SVG polygon."""


def radar(judged: Mapping[str, Any]) -> Radar | None:
    """The picture of ``mt_bench.json``, a line a turn; None where two models were compared."""
    if "turns" not in judged:
        return None
    categories = judged.get("categories", {})
    lines = {
        turn: [figures["turns"].get(turn, {}).get("value") for figures in categories.values()]
        for turn in judged["turns"]
    }
    return picture(list(categories), lines)


def picture(categories: Sequence[str], lines: Mapping[str, Sequence[float | None]]) -> Radar | None:
    """The first axis points up, the others follow clockwise. None if fewer than three categories are there.

    Args:
        lines: Name -> a rating of each category; a line that lacks one is not drawn.
    """
    if len(categories) < _LEAST_AXES:
        return None
    directions = [2 * math.pi * index / len(categories) for index in range(len(categories))]
    axes = [_axis(name, direction) for name, direction in zip(categories, directions, strict=True)]
    drawn = [
        (name, _closed(directions, [rating for rating in ratings if rating is not None]))
        for name, ratings in lines.items()
        if None not in ratings
    ]
    return Radar(tuple(axes), tuple((ring, RADIUS * ring / _GREATEST) for ring in _RINGS), tuple(drawn))


def _closed(directions: Sequence[float], ratings: Sequence[float]) -> str:
    points = (
        _at(direction, RADIUS * rating / _GREATEST)
        for direction, rating in zip(directions, ratings, strict=True)
    )
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _axis(name: str, direction: float) -> Axis:
    x, y = _at(direction, RADIUS)
    label_x, label_y = _at(direction, RADIUS * _LABEL)
    side = round(math.sin(direction), 6)
    anchor = "middle" if side == 0 else "start" if side > 0 else "end"
    return Axis(name, x, y, label_x, label_y, anchor)


def _at(direction: float, distance: float) -> tuple[float, float]:
    """x and y (downwards) at ``direction`` radians clockwise from the top."""
    return distance * math.sin(direction), -distance * math.cos(direction)
