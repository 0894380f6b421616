"""The radar picture of MT-Bench."""

import math
from typing import Any

import pytest

from deft_engine.report import render_report
from deft_engine.report_radar import radar


def judged(ratings: dict[str, tuple[float | None, float | None]]) -> dict[str, Any]:
    """A result of the stage ``judge`` with these ratings of both turns."""

    def figure(value: float | None) -> dict[str, Any]:
        return {"value": value, "n": int(value is not None), "unparsed": int(value is None)}

    return {
        "model": "us", "judge": "them", "signature": "mt_bench|single", "warnings": [],
        "total": figure(5.0), "turns": {"1": figure(6.0), "2": figure(4.0)},
        "categories": {
            name: {**figure(first), "turns": {"1": figure(first), "2": figure(second)}}
            for name, (first, second) in ratings.items()
        },
    }  # fmt: skip


FOUR = {"coding": (10.0, 5.0), "math": (5.0, 2.5), "roleplay": (2.0, 1.0), "<b>": (7.5, 1.0)}


def points(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split())]


def test_a_rating_is_a_distance_along_its_category_s_axis() -> None:
    found = radar(judged(FOUR))
    assert found is not None
    first, second = (points(line) for _, line in found.lines)
    assert first == [(0, -100), (50, 0), (0, 20), (-75, 0)]  # up, right, down, left
    assert second[0] == (0, -50)
    assert [(axis.name, axis.anchor) for axis in found.axes] == [
        ("coding", "middle"), ("math", "start"), ("roleplay", "middle"), ("<b>", "end"),
    ]  # fmt: skip
    assert dict(found.rings)[10] == 100


def test_eight_categories_stand_around_a_circle() -> None:
    found = radar(judged({f"category {n}": (10.0, 10.0) for n in range(8)}))
    assert found is not None
    corners = points(found.lines[0][1])
    assert all(math.hypot(x, y) == pytest.approx(100, abs=0.2) for x, y in corners)
    sides = [math.dist(one, other) for one, other in zip(corners, corners[1:] + corners[:1], strict=True)]
    assert sides == pytest.approx([200 * math.sin(math.pi / 8)] * 8, abs=0.2)


def test_a_turn_that_lacks_a_rating_has_no_line() -> None:
    found = radar(judged({**FOUR, "math": (5.0, None)}))
    assert found is not None
    assert [turn for turn, _ in found.lines] == ["1"]


@pytest.mark.parametrize("what", [{}, judged({"coding": (1.0, 1.0), "math": (2.0, 2.0)}), {"against": "x"}])
def test_no_picture_where_there_is_nothing_to_draw(what: dict[str, Any]) -> None:
    assert radar(what) is None


def test_the_report_has_picture_and_table_and_escapes_names() -> None:
    stage = {"stage": "judge", "result": judged(FOUR), "fingerprint": "f" * 64, "versions": {}}
    spec = {"kind": "judge", "name": "bench"}
    page = render_report({"spec": spec, "stages": [stage], "warnings": []}, {}, {})
    assert page.count("<polygon") == 2
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
