"""Metric series: exact when short, thinned without losing a peak when long, fast when very long."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from app.db.session import transaction
from tests.api_world import Api, finish, make_ready, stage_run_of, take


@pytest.fixture
def job(api: Api) -> dict[str, Any]:
    return api.job(kind="align", name="j", dataset=api.dataset()["id"], model={"base": "tiny"}, deft=None)


def insert(run_id: str, name: str, values: list[float], first_step: int = 1) -> None:
    with transaction() as session:
        session.execute(
            sa.text(
                "INSERT INTO metrics (stage_run_id, name, step, value, time)"
                " SELECT :run, :name, :first + n - 1, v,"
                " '2026-01-02T03:04:05.5Z'::timestamptz + n * '1s'::interval"
                " FROM unnest(CAST(:values AS float8[])) WITH ORDINALITY AS t(v, n)"
            ),
            {"run": run_id, "name": name, "first": first_step, "values": values},
        )


def series(api: Api, job: dict[str, Any], **params: Any) -> dict[str, dict[str, Any]]:
    answer = api.get(f"/jobs/{job['id']}/metrics", params=params)
    assert answer.status_code == 200, answer.text
    return {entry["name"]: entry for entry in answer.json()["data"]}


def test_points_are_step_value_time(api: Api, job: dict[str, Any]) -> None:
    run = stage_run_of(job, "train")
    insert(run, "loss", [0.5, math.nan, math.inf, -math.inf, 0.25])
    insert(run, "rewards/margins", [1.0, 2.0])
    found = series(api, job)
    assert list(found) == ["loss", "rewards/margins"]
    assert found["loss"]["n"] == 5
    assert [point[:2] for point in found["loss"]["points"]] == [
        [1, 0.5], [2, "NaN"], [3, "Infinity"], [4, "-Infinity"], [5, 0.25],
    ]  # fmt: skip
    assert found["loss"]["points"][0][2] == "2026-01-02T03:04:06.500000Z"


def test_names_are_chosen_and_echoed_as_asked(api: Api, job: dict[str, Any]) -> None:
    insert(stage_run_of(job, "train"), "loss", [3.0])
    assert series(api, job, name="train/loss")["train/loss"]["points"][0][:2] == [1, 3.0]
    both = series(api, job, name="loss,later")
    assert (both["loss"]["n"], both["later"]) == (1, {"name": "later", "points": [], "n": 0})
    assert api.get(f"/jobs/{job['id']}/metrics", params={"name": "a\x00"}).status_code == 422


def test_steps_are_cut(api: Api, job: dict[str, Any]) -> None:
    insert(stage_run_of(job, "train"), "loss", [float(i) for i in range(1, 101)])
    found = series(api, job, name="loss", from_step=40, to_step=42)["loss"]
    assert [point[0] for point in found["points"]] == [40, 41, 42]
    assert found["n"] == 3
    assert series(api, job, name="loss", from_step=101)["loss"]["points"] == []
    assert api.get(f"/jobs/{job['id']}/metrics", params={"from_step": -1}).status_code == 422


def test_thinning_keeps_peaks_ends_and_nan(api: Api, job: dict[str, Any]) -> None:
    values = np.sin(np.arange(5000) / 50.0)
    values[1234], values[2345], values[3456], values[4567] = 99.0, -99.0, math.inf, math.nan
    insert(stage_run_of(job, "train"), "loss", values.tolist())
    for max_points in (10, 11, 100, 999):
        found = series(api, job, name="loss", max_points=max_points)["loss"]
        points = {step: value for step, value, _ in found["points"]}
        assert found["n"] == 5000
        assert len(found["points"]) <= max_points
        assert list(points) == sorted(points)
        assert {1, 5000} <= points.keys()
        assert points[3457] == "Infinity"
        assert points[2346] == -99.0
        assert points[4568] == "NaN"
        for step, value in points.items():  # every point is one of the series
            assert value in ("NaN", "Infinity") or value == values[step - 1]


@pytest.mark.parametrize(
    ("values", "kept"),
    [  # by max_points 1, 2, ...: the steps that stay
        ([2.0, 9.0, 5.0, 1.0, 4.0, 3.0, 3.0], [[7], [2, 4], [2, 4, 7], [1, 2, 4, 7]]),
        ([2.0, 9.0, math.nan, 1.0, 4.0, math.nan, 3.0], [[7], [2, 4], [2, 3, 4], [2, 3, 4, 7]]),
        ([math.nan] * 7, [[7], [1], [1], [1, 7], [1, 7]]),
    ],
)  # fmt: skip
def test_few_points_are_the_extremes_first(
    api: Api, job: dict[str, Any], values: list[float], kept: list[list[int]]
) -> None:
    insert(stage_run_of(job, "train"), "loss", values)
    for max_points, steps in enumerate(kept, start=1):
        found = series(api, job, name="loss", max_points=max_points)["loss"]
        assert ([point[0] for point in found["points"]], found["n"]) == (steps, 7), max_points
    assert api.get(f"/jobs/{job['id']}/metrics", params={"max_points": 0}).status_code == 422


def test_each_bucket_keeps_its_minimum_and_maximum(api: Api, job: dict[str, Any]) -> None:
    values = np.random.default_rng(7).normal(size=4000)
    insert(stage_run_of(job, "train"), "loss", values.tolist())
    steps = [point[0] - 1 for point in series(api, job, name="loss", max_points=82)["loss"]["points"]]
    for bucket in range(40):  # (82 - 2 ends) / 2 = 40 buckets of 100
        inside = values[100 * bucket : 100 * (bucket + 1)]
        kept = values[[s for s in steps if 100 * bucket <= s < 100 * (bucket + 1)]]
        assert (kept.min(), kept.max()) == (inside.min(), inside.max())


def test_what_a_finished_stage_gets_later_is_seen(api: Api, job: dict[str, Any]) -> None:
    make_ready(job["id"], "train")
    run = stage_run_of(job, "train")
    finish(take(run), {"model/config.json": b"{}"}, {"steps": 1})
    insert(run, "loss", [1.0] * 3000)
    assert series(api, job, name="loss")["loss"]["n"] == 3000
    insert(run, "loss", [2.0], first_step=3001)
    assert series(api, job, name="loss")["loss"]["n"] == 3001


@pytest.mark.slow
def test_a_million_points_answer_fast(api: Api, job: dict[str, Any]) -> None:
    make_ready(job["id"], "train")
    run = stage_run_of(job, "train")
    finish(take(run), {"model/config.json": b"{}"}, {"steps": 1})
    with transaction() as session:
        session.execute(
            sa.text(
                "INSERT INTO metrics SELECT :run, 'loss', n, sin(n / 1000.0), now()"
                " FROM generate_series(1, 1000000) n"
            ),
            {"run": run},
        )
    seconds = []
    for _ in range(40):
        started = time.perf_counter()
        found = series(api, job, name="loss", max_points=500)["loss"]
        seconds.append(time.perf_counter() - started)
    assert found["n"] == 1_000_000
    assert len(found["points"]) <= 500
    first, *others = seconds
    # The target is 95 % below 0.1 s; the slack is for a machine that does something else beside the test.
    assert sorted(others)[int(0.95 * len(others))] < 0.5, f"first {first:.2f} s, then {max(others):.3f} s"
    assert sorted(others)[len(others) // 2] < 0.1
