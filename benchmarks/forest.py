"""A picture of an experiment: each arm's mean and 95% interval, as an SVG that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

_ROW, _LABELS, _WIDTH, _MARGIN = 26, 190, 420, 30
_STYLE = (
    "text{font:13px sans-serif;fill:#333}line{stroke:#0072b2;stroke-width:2}circle{fill:#0072b2}"
    ".axis{stroke:#999;stroke-width:1}rect{fill:#fff}"
)


def forest(arms: Sequence[dict[str, Any]], figure: str, title: str) -> str:
    """The arms' totals of a figure, top to bottom as they come.

    Args:
        arms: of an experiment's results; those without the figure are left out.
    """
    shown = [(arm["name"], arm["total"][figure]) for arm in arms if figure in arm["total"]]
    low = min(each["interval"][0] for _, each in shown)
    high = max(each["interval"][1] for _, each in shown)
    height = _MARGIN + _ROW * len(shown) + _MARGIN

    def across(value: float) -> float:
        return round(_LABELS + (value - low) / (high - low) * _WIDTH, 1)

    rows = []
    for number, (name, each) in enumerate(shown):
        y = _MARGIN + _ROW * number + _ROW / 2
        left, right = map(across, each["interval"])
        rows.append(
            f'<text x="{_LABELS - 10}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
            f'<line x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{across(each["value"])}" cy="{y}" r="4"/>'
        )
    foot = height - _MARGIN + 4
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LABELS + _WIDTH + _MARGIN} {height}" '
        f'role="img" aria-label="{escape(title)}"><style>{_STYLE}</style>'
        f'<rect width="100%" height="100%"/><text x="{_LABELS}" y="18">{escape(title)}</text>'
        + "".join(rows)
        + f'<line class="axis" x1="{_LABELS}" x2="{_LABELS + _WIDTH}" y1="{foot}" y2="{foot}"/>'
        f'<text x="{_LABELS}" y="{foot + 16}">{low:.2f}</text>'
        f'<text x="{_LABELS + _WIDTH}" y="{foot + 16}" text-anchor="end">{high:.2f}</text></svg>\n'
    )
