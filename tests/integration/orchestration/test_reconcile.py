from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from app.db.claims import LeaseLost
from app.db.locks import database_time, try_lock_reconciler
from app.db.models import Attempt, StageRun
from app.db.reconcile import reconcile
from app.db.session import transaction
from app.settings import get_settings
from tests.orchestration_world import (
    align,
    finish,
    job,
    move,
    run,
    runs,
    statuses,
    submit,
    take,
    took,
)
from tests.worker_world import until

EMPTY_BROKER = {"cpu": 0, "gpu": 0}


def put_right(messages: dict[str, int] = EMPTY_BROKER, *, take_back: bool = True) -> None:
    """A pass."""
    with transaction() as session:
        reconcile(session, get_settings(), messages, take_back=take_back)


def age(run_id: str, *columns: str, seconds: float = 3600) -> None:
    """Move moments of a stage run into the past."""
    with transaction() as session:
        past = database_time(session) - timedelta(seconds=seconds)
        session.execute(update(StageRun).where(StageRun.id == run_id).values(dict.fromkeys(columns, past)))


def test_a_lease_that_ran_out_gives_the_stage_to_another_attempt() -> None:
    job_id = submit(align())
    first = took(runs(job_id)["import"])
    put_right()
    assert statuses(job_id)["import"] == "running", "its lease has not run out"
    age(first.run_id, "lease_until")
    put_right()
    assert statuses(job_id)["import"] == "ready"
    age(first.run_id, "not_before")
    second = took(first.run_id)
    assert second.attempt == 2
    with pytest.raises(LeaseLost):
        finish(first)
    finish(second)
    with transaction() as session:
        assert [
            attempt.status.value for attempt in session.scalars(select(Attempt).order_by(Attempt.number))
        ] == ["lost", "succeeded"]


def test_a_stage_whose_workers_always_die_fails_after_max_attempts() -> None:
    job_id = submit(align())
    run_id = runs(job_id)["import"]
    for _ in range(3):
        took(run_id)
        age(run_id, "lease_until")
        put_right()
        age(run_id, "not_before")
        put_right()
    assert take(run_id) is None
    error = job(job_id).error
    assert error is not None
    assert error["code"] == "worker_lost"
    assert error["message"].startswith("stage import: ")


def test_leases_are_not_taken_back_by_a_reconciler_that_was_cut_off() -> None:
    job_id = submit(align())
    claimed = took(runs(job_id)["import"])
    age(claimed.run_id, "lease_until")
    put_right(take_back=False)
    assert statuses(job_id)["import"] == "running"


def test_a_cancelling_job_ends_when_its_worker_is_gone() -> None:
    job_id = submit(align())
    claimed = took(runs(job_id)["import"])
    move(job_id, "cancel")
    age(claimed.run_id, "lease_until")
    put_right()
    assert job(job_id).status == "cancelled"


def test_a_stage_that_is_ready_for_long_is_rung_again(rung: list[str]) -> None:
    run_id = runs(submit(align()))["import"]
    rung.clear()
    put_right()
    assert rung == [], "it was sent just now"
    age(run_id, "sent_at")
    put_right()
    put_right()
    assert rung == [run_id]


def test_a_stage_whose_message_may_still_wait_is_not_rung_again(rung: list[str]) -> None:
    run_id = runs(submit(align()))["import"]
    age(run_id, "sent_at")
    rung.clear()
    put_right({"cpu": 1, "gpu": 0})
    put_right({})  # the broker does not answer
    assert rung == []


def test_a_stage_is_rung_when_its_pause_after_a_crash_has_passed(rung: list[str]) -> None:
    job_id = submit(align())
    claimed = took(runs(job_id)["import"])
    age(claimed.run_id, "lease_until")
    rung.clear()
    put_right()
    assert rung == []
    age(claimed.run_id, "not_before")
    put_right()
    assert rung == [claimed.run_id]


def test_a_waiting_stage_whose_inputs_are_made_is_started(rung: list[str]) -> None:
    job_id = submit(align())
    finish(took(runs(job_id)["import"]))
    with transaction() as session:
        session.execute(update(StageRun).where(StageRun.stage == "score").values(status="waiting"))
    rung.clear()
    put_right()
    assert statuses(job_id)["score"] == "ready"
    assert statuses(job_id)["grade"] == "waiting"
    assert rung == [runs(job_id)["score"]]


def test_reconcilers_at_once_count_one_lost_attempt() -> None:
    job_id = submit(align())
    claimed = took(runs(job_id)["import"])
    age(claimed.run_id, "lease_until")
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: put_right(), range(12)))
    assert run(job_id, "import").attempt == 1
    assert statuses(job_id)["import"] == "ready"


def test_a_reconciler_that_stalls_keeps_nobody_from_reconciling(monkeypatch: pytest.MonkeyPatch) -> None:
    soon = text("SET LOCAL idle_in_transaction_session_timeout = '200ms'")
    monkeypatch.setattr("app.db.locks._STALL_LIMIT", soon)

    def another_may() -> bool:
        with transaction() as session:
            return try_lock_reconciler(session)

    def stall() -> None:
        with transaction() as stalled:
            assert try_lock_reconciler(stalled)
            until(another_may, patience=30)

    with pytest.raises(DBAPIError, match="idle-in-transaction"):
        stall()
