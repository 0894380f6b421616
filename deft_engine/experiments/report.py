"""``report.html`` of an experiment, in one self-contained file, for somebody who knows the paper alone.

It loads nothing, runs no script, and every text of a model or a user is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from deft_engine.evaluators import decimals
from deft_engine.experiments.report_parts import Surroundings, bench_categories, bench_radar
from deft_engine.experiments.results import TOTAL, Figure
from deft_engine.experiments.statistics import RESAMPLES
from deft_engine.experiments.tables import shown_figures, significant
from deft_engine.report import answering_name, report_template
from deft_engine.report_charts import HEIGHT, WIDTH

_TEMPLATE = "experiments/report.html.j2"
_QUALITY = ("reward", "bleu")
_LABEL_WIDTH, _LABEL_HEIGHT = 110.0, 11.0  # of an arm's name in the figure of cost, in SVG units


class Row(Protocol):
    """A row of the table, as a report reads it; ``cost`` has the fields of the API's."""

    @property
    def name(self) -> str: ...

    @property
    def baseline(self) -> str | None: ...

    @property
    def subsets(self) -> Mapping[str, Mapping[str, Figure]]: ...

    @property
    def total(self) -> Mapping[str, Figure]: ...

    @property
    def cost(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt with the answers of an arm and of its baseline, and both answers' values of a figure."""

    figure: str
    subset: str
    prompt: str
    arm: str
    response: str
    value: float
    baseline: str
    baseline_response: str
    baseline_value: float


@dataclass(frozen=True, slots=True)
class Point:
    """An arm in the figure of cost against quality, in SVG units.

    ``low`` and ``high`` are its interval's, ``label`` is the height of its name.
    """

    name: str
    x: float
    y: float
    low: float
    high: float
    label: float


def render_experiment_report(
    experiment_id: str,
    request: Mapping[str, Any],
    rows: Sequence[Row],
    specs: Sequence[Mapping[str, Any]],
    cases: Sequence[Case],
    warnings: Sequence[str],
    beside: Surroundings,
    *,
    complete: bool,
) -> str:
    """The page.

    Args:
        request: the experiment as resolved.
        specs: of each arm the resolved spec of one of its jobs.
        beside: what it shows beside the table.
        complete: whether every job is evaluated.
    """
    quality = next((name for name in _QUALITY if any(name in row.total for row in rows)), "")
    signatures = {f"{key}: {cell.signature}" for row in rows for key, cell in row.total.items()}
    return report_template(_TEMPLATE).render(
        name=request["name"],
        id=experiment_id,
        complete=complete,
        seeds=request["seeds"],
        arms=rows,
        descriptions=[describe_arm(spec) for spec in specs],
        resamples=RESAMPLES,
        warnings=warnings,
        figures=shown_figures(rows),
        groups=[*sorted({name for row in rows for name in row.subsets}), TOTAL],
        total=TOTAL,
        significant=significant,
        decimals=decimals,
        signatures=sorted(signatures),
        findings=findings(rows),
        points=cost_points(rows, quality),
        quality=quality,
        cases=cases,
        request=json.dumps(request, indent=2, ensure_ascii=False),
        beside=beside,
        bench_categories=bench_categories(beside.benches),
        radar=bench_radar(beside.benches),
        width=WIDTH,
        height=HEIGHT,
    )


def describe_arm(spec: Mapping[str, Any]) -> str:
    """What an arm's jobs do, in a sentence or two."""
    if spec["kind"] == "evaluate":
        return f"{answering_name(spec['model'])} as it is."
    base = spec["model"]["base"]
    method, deft = spec["method"]["name"].upper(), spec["deft"]
    if deft is None:
        return f"{base}, trained by {method} on all samples."
    levels = ", ".join(deft["levels"])
    omega = deft["omega"]
    if isinstance(omega, dict):
        reward = f"with the distribution reward at {100 * omega['grad_share']:g} percent of the gradient"
    else:
        reward = f"with omega = {omega:g}" if omega else "without the distribution reward"
    return (
        f"{base}, trained by {method} on level {levels} (a = {deft['a']:g}, c = {deft['c']:g}, graded by "
        f"{deft['grader']['name']}), {reward}."
    )


def findings(rows: Sequence[Row]) -> list[str]:
    """Of each comparison over all samples whether it is significant, the significant ones first."""
    told: list[tuple[bool, str]] = []
    for row in rows:
        for key, heading in shown_figures(rows):
            figure = row.total.get(key)
            if figure is None or figure.difference is None or figure.difference.value is None:
                continue
            compared, clear = figure.difference, significant(figure)
            change = _change(compared.value or 0.0, decimals(key))
            p = "" if compared.p_corrected is None else f", p = {compared.p_corrected:.2g} corrected"
            verdict = "a significant difference" if clear else "no significant difference"
            told.append((clear, f"{row.name}: {heading} {change} {compared.baseline}{p}: {verdict}."))
    return [text for _, text in sorted(told, key=lambda each: not each[0])]


def _change(difference: float, digits: int) -> str:
    """How a figure lies to another's, as far as the digits that are shown tell."""
    shown = f"{abs(difference):.{digits}f}"
    if float(shown) == 0:
        return "equal, to the digits shown, to that of"
    return f"{shown} {'higher' if difference > 0 else 'lower'} than"


def cost_points(rows: Sequence[Row], quality: str) -> list[Point]:
    """Quality over the tokens that a model was trained on; none where nothing was trained or evaluated."""
    known = [
        (
            row.name,
            float(row.cost.trained_tokens),
            figure.value,
            figure.interval or (figure.value, figure.value),
        )
        for row in rows
        if (figure := row.total.get(quality)) is not None and figure.value is not None
    ]
    most = max((tokens for _, tokens, _, _ in known), default=0.0)
    if most == 0:
        return []
    low = min(interval[0] for *_, interval in known)
    scale = HEIGHT / ((max(interval[1] for *_, interval in known) - low) or 1.0)

    def up(value: float) -> float:
        return HEIGHT - (value - low) * scale

    places = [(tokens / most * WIDTH, up(value)) for _, tokens, value, _ in known]
    return [
        Point(name, x, y, up(interval[0]), up(interval[1]), label)
        for (name, _, _, interval), (x, y), label in zip(known, places, label_heights(places), strict=True)
    ]


def label_heights(places: Sequence[tuple[float, float]]) -> list[float]:
    """Where the names of points (x, y) stand: at their points, or below the names that would cover them."""
    placed: dict[int, float] = {}
    for index in sorted(range(len(places)), key=lambda each: places[each][1]):
        x, height = places[index]
        for other, taken in sorted(placed.items(), key=lambda each: each[1]):
            if abs(places[other][0] - x) < _LABEL_WIDTH and abs(taken - height) < _LABEL_HEIGHT:
                height = taken + _LABEL_HEIGHT
        placed[index] = height
    return [placed[index] for index in range(len(places))]
