from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import select

from app.db.claims import Claim
from app.db.events import append_event
from app.db.ingest import ingest
from app.db.models import Metric
from app.db.session import transaction
from tests.orchestration_world import align, events, finish, hand_back, move, run, runs, submit, took

TIME = "2026-01-01T00:00:00+00:00"


def event(seq: int, type: str, **fields: Any) -> dict[str, Any]:
    return {"seq": seq, "time": TIME, "type": type, **fields}


def loss(seq: int, step: int, value: float | str) -> dict[str, Any]:
    return event(seq, "metrics", step=step, values={"loss": value})


def copy(claimed: Claim, *batch: dict[str, Any], source: int | None = None) -> None:
    with transaction() as session:
        ingest(session, claimed, source or claimed.attempt, batch)


def series(run_id: str) -> list[tuple[int, float]]:
    with transaction() as session:
        points = session.scalars(select(Metric).where(Metric.stage_run_id == run_id).order_by(Metric.step))
        return [(point.step, point.value) for point in points]


def engine_events(job_id: str) -> list[tuple[str, dict[str, Any]]]:
    return [(told.type, told.data) for told in events(job_id) if told.source_seq is not None]


def test_every_event_reaches_every_live_job_once_whatever_is_sent_again() -> None:
    first, second, gone = submit(align()), submit(align(name="b")), submit(align(name="c"))
    move(gone, "cancel")
    claimed = took(runs(first)["import"])
    batch = [
        event(1, "progress", step=1, total=2, eta_s=None),
        event(2, "log", level="info", message="half"),
        loss(3, 1, 0.5),
    ]
    copy(claimed, *batch[:2])
    copy(claimed, *batch)
    copy(claimed, *batch)
    expected = [
        ("progress", {"stage": "import", "step": 1, "total": 2, "eta_s": None}),
        ("log", {"stage": "import", "level": "info", "message": "half"}),
        ("metrics", {"stage": "import", "step": 1, "values": {"loss": 0.5}}),
    ]
    assert engine_events(first) == engine_events(second) == expected
    assert engine_events(gone) == []
    assert run(first, "import").progress == {"step": 1, "total": 2, "eta_s": None}
    for job_id in (first, second, gone):
        numbers = [told.seq for told in events(job_id)]
        assert numbers == list(range(1, len(numbers) + 1))


def test_after_a_resume_a_series_has_each_step_once_with_the_newest_value() -> None:
    job_id = submit(align())
    first = took(runs(job_id)["import"])
    copy(first, loss(1, 1, 0.9), loss(2, 2, 0.8), loss(3, 3, 0.7))
    hand_back(first)
    second = took(first.run_id)
    copy(second, loss(1, 3, 0.75), loss(2, 4, 0.6))
    assert series(first.run_id) == [(1, 0.9), (2, 0.8), (3, 0.75), (4, 0.6)]


def test_events_that_a_dead_worker_left_are_copied_by_the_next_attempt() -> None:
    job_id = submit(align())
    first = took(runs(job_id)["import"])
    copy(first, loss(1, 1, 0.9))
    hand_back(first)
    second = took(first.run_id)
    left = [loss(1, 1, 0.9), loss(2, 2, 0.8)]
    copy(second, *left, source=1)
    copy(second, *left, source=1)
    assert series(first.run_id) == [(1, 0.9), (2, 0.8)]
    assert len(engine_events(job_id)) == 2


def test_one_batch_may_hold_a_step_twice_and_values_that_are_no_numbers() -> None:
    job_id = submit(align())
    claimed = took(runs(job_id)["import"])
    copy(claimed, loss(1, 1, 0.5), loss(2, 1, "NaN"), loss(3, 2, "-Infinity"))
    points = series(claimed.run_id)
    assert [step for step, _ in points] == [1, 2]
    assert math.isnan(points[0][1])
    assert points[1][1] == -math.inf


def test_events_written_at_once_are_numbered_without_gaps() -> None:
    job_id = submit(align())
    claimed = took(runs(job_id)["import"])

    def write(number: int) -> None:
        if number % 2:
            copy(claimed, event(number, "log", level="info", message=str(number)))
        else:
            with transaction() as session:
                append_event(session, job_id, "log", {"stage": None, "level": "info", "message": "api"})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    numbers = [told.seq for told in events(job_id)]
    assert numbers == list(range(1, len(numbers) + 1))
    finish(claimed)
