"""``report.html``: what a job's reader sees, made from a manifest, curves and small artifacts."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from deft_engine.report import describe, render_report, report_template
from deft_engine.report_charts import HEIGHT, WIDTH, curve, histogram

HOSTILE = '<script>alert(1)</script><img src="//evil.example/x" onerror="alert(2)">'
TIMES = {"started_at": "2026-01-01T00:00:00+00:00", "finished_at": "2026-01-01T00:01:30+00:00"}
SPEC: dict[str, Any] = {
    "kind": "align",
    "name": f"first {HOSTILE}",
    "model": {"base": "tiny"},
    "method": {"name": "dpo"},
    "deft": {"a": 3.73, "c": 12.5, "levels": ["A"], "grader": {"name": "scores"}},
}
SCORE = {"value": 41.5, "n": 7, "signature": "reward|sigmoid", "reason": None}
NO_SCORE = {"value": None, "n": 0, "signature": "reward|sigmoid", "reason": "no samples"}
RESULTS = {
    "import": {"format": "ranked", "rows": 1200, "samples": 1193, "rejected": 7},
    "grade": {
        "levels": {"A": 2, "B": 3, "C": 1},
        "subsets": {"harmless-base": {"A": 2, "B": 3, "C": 1}},
        "disagreement": 0.25,
    },
    "train": {
        "steps": 3, "samples": 6, "tokens": 99, "seconds": 1.5, "truncated": 0, "omega": 2.5,
        "grad_share": 0.03, "warnings": ["the share is small"],
    },
    "evaluate": {
        "subsets": {"harmless-base": {"reward": NO_SCORE}}, "total": {"reward": SCORE}, "warnings": [],
    },
}  # fmt: skip
GRADING = {
    "harmless-base": {
        "edges": [0.0, 1.0, 3.0],
        "counts": {"A": [0, 2], "B": [3, 0], "C": [1, 0]},
        "cut_a": 1.5,
        "cut_c": 0.2,
        "n": 6,
    }
}
TOKENS = {
    "top_positive": [{"text": "\n", "q_diff": 0.02}],
    "top_negative": [{"text": "<b>", "q_diff": -0.01}],
}
GENERATION = {
    "sample_id": "s1", "subset": "harmless-base", "prompt": [{"role": "user", "content": HOSTILE}],
    "response": HOSTILE, "reference": "a good answer",
}  # fmt: skip


class Page(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def manifest(spec: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    stages = [
        {"stage": name, "result": result, "fingerprint": name * 9, "versions": {"torch": "2.13.0"}, **TIMES}
        for name, result in results.items()
    ]
    return {"spec": spec, "stages": stages, "warnings": ["evaluated on the training data"]}


@pytest.fixture
def artifacts(tmp_path: Path) -> dict[str, Path]:
    contents = {"grading.json": GRADING, "qdiff_tokens.json": TOKENS, "generations.jsonl": GENERATION}
    for name, content in contents.items():
        (tmp_path / name).write_text(json.dumps(content) + "\n")
    return {name: tmp_path / name for name in contents}


@pytest.fixture
def page(artifacts: dict[str, Path]) -> str:
    curves = {"loss": [(1, 2.0), (2, math.nan), (3, 1.0)], "deft/r_dis": [(1, 0.5)]}
    return render_report(manifest(SPEC, RESULTS), curves, artifacts)


def test_nothing_a_model_or_a_user_wrote_becomes_markup_and_nothing_is_loaded(page: str) -> None:
    found = Page(page)
    assert not {"script", "img", "iframe", "link", "object", "b"} & set(found.tags)
    assert not [
        name for name, _ in found.attributes if name.startswith("on") or name in ("src", "href", "style")
    ]
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3  # the name, the prompt, the answer


def test_the_page_has_the_figures_of_every_stage(page: str) -> None:
    for told in (
        "1,193",
        "Level A",
        "25 percent",
        "omega = 2.5",
        "0.03 of the base loss",
        "41.5",
        "reward|sigmoid",
    ):
        assert told in page
    assert "– (no samples)" in page
    assert "evaluated on the training data" in page
    assert "the share is small" in page
    assert page.count("<polyline") == 1  # one finite point of R_dis makes no curve
    assert "a good answer" in page
    assert "<td>90</td>" in page  # seconds of a stage


@pytest.mark.parametrize(
    ("changed", "results", "sentence"),
    [
        ({"deft": None}, {}, "without DEFT"),
        ({}, {"train": {"omega": None}}, "ablation"),
        ({"kind": "grade"}, {}, "3.73 percent"),
        ({"kind": "reward_model"}, {}, "eq 1"),
        ({"kind": "evaluate", "eval_dataset": "ds_1"}, {}, "ds_1"),
        ({"deft": {**SPEC["deft"], "grader": {"name": "reward_model", "model": "job:r"}}}, {}, "job:r"),
    ],
)
def test_the_method_is_told_in_words(changed: dict[str, Any], results: dict[str, Any], sentence: str) -> None:
    assert any(sentence in said for said in describe({**SPEC, **changed}, results))


@pytest.mark.parametrize(
    ("value", "read"),
    [(92235.4, "92,235"), (1234.5, "1234"), (0.00012345, "0.0001234"), (1_642_000, "1,642,000"), (None, "–")],
)
def test_numbers_as_people_read_them(value: float | None, read: str) -> None:
    assert report_template("report.html.j2").environment.filters["figure"](value) == read


def test_a_stage_of_an_earlier_version_costs_only_its_figures() -> None:
    page = render_report(
        {"spec": SPEC, "stages": [{"stage": "train", "result": None}], "warnings": []}, {}, {}
    )
    assert "How to reproduce" in page


def test_a_long_curve_keeps_its_peaks() -> None:
    points = [(step, 0.0) for step in range(1, 10_001)]
    points[5_000] = (5_001, 9.0)
    points[7_003] = (7_004, -9.0)
    drawn = curve("loss", points)
    assert drawn is not None
    heights = [float(point.partition(",")[2]) for point in drawn.path.split()]
    assert len(heights) < 1_000
    assert (min(heights), max(heights)) == (0.0, HEIGHT)
    assert (drawn.least, drawn.greatest, drawn.last) == (-9.0, 9.0, 0.0)


def test_a_histogram_fills_its_plane_and_marks_both_cuts() -> None:
    drawn = histogram("s", GRADING["harmless-base"])
    areas = {level: sum(bar.height for bar in drawn.bars if bar.level == level) for level in "ABC"}
    assert areas == {"A": HEIGHT / 2, "B": 3 * HEIGHT / 4, "C": HEIGHT / 4}
    assert drawn.tallest == 4
    assert dict(drawn.cuts) == {"A": pytest.approx(WIDTH / 2), "C": pytest.approx(WIDTH / 15)}
    assert max(bar.x + bar.width for bar in drawn.bars) == pytest.approx(WIDTH)
