"""Text can be read in light and dark: WCAG 2.2, 1.4.3 asks for a contrast of at least 4.5."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

import app.web

STATIC = Path(app.web.__file__).parent / "static"
DARK = "@media (prefers-color-scheme: dark)"
PAIRS = {
    "base.css": [
        *product(("text", "muted", "accent", "good", "bad", "warn"), ("background", "surface")),
        ("background", "accent"),  # a button
    ],
    "annotate.css": [
        *product(("text", "quiet", "accent", "alarm"), ("ground", "pane")),
        ("text", "warning"),
        ("on-accent", "accent"),
    ],
    "study.css": [*product(("on-bar",), ("win", "tie", "lose"))],
}


def colours(file: str, scheme: str) -> dict[str, str]:
    before, _, after = (STATIC / file).read_text().partition(DARK)
    rules = before if scheme == "light" else before + after[: after.index("\n}")]
    return dict(re.findall(r"--([\w-]+):\s*#([0-9a-f]{6})\b", rules))  # the last one counts


def luminance(colour: str) -> float:
    """Relative luminance as WCAG defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_measure_itself() -> None:
    assert contrast("ffffff", "000000") == pytest.approx(21)
    assert contrast("767676", "ffffff") == pytest.approx(4.54, abs=0.005)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("file", PAIRS)
def test_text_stands_out_from_its_ground(file: str, scheme: str) -> None:
    found = colours(file, scheme)
    assert (found != colours(file, "light")) == (scheme == "dark")
    low = {pair: contrast(found[pair[0]], found[pair[1]]) for pair in PAIRS[file]}
    assert {pair: value for pair, value in low.items() if value < 4.5} == {}
