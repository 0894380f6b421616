from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from app.db.claims import Claim, LeaseLost, renew
from app.db.ingest import ingest
from app.db.locks import database_time
from app.db.models import Artifact, Attempt, StageRun
from app.db.session import transaction
from tests.orchestration_world import (
    CRASH,
    DEFECT,
    align,
    die,
    events,
    finish,
    hand_back,
    job,
    run,
    runs,
    statuses,
    submit,
    take,
    took,
)


def attempts(run_id: str) -> list[tuple[str, int | None]]:
    with transaction() as session:
        found = session.scalars(
            select(Attempt).where(Attempt.stage_run_id == run_id).order_by(Attempt.number)
        )
        return [(attempt.status.value, attempt.exit_code) for attempt in found]


def let_backoff_pass(run_id: str) -> None:
    with transaction() as session:
        session.execute(update(StageRun).where(StageRun.id == run_id).values(not_before=None))


def refuse_all(claimed: Claim) -> None:
    """Every write of a claim that is over is refused."""
    for write in (
        lambda: finish(claimed),
        lambda: die(claimed),
        lambda: hand_back(claimed),
        lambda: beat(claimed),
        lambda: report(claimed),
    ):
        with pytest.raises(LeaseLost):
            write()


def beat(claimed: Claim) -> None:
    with transaction() as session:
        renew(session, claimed, lease_seconds=20)


def report(claimed: Claim) -> None:
    event = {"seq": 1, "time": "2026-01-01T00:00:00+00:00", "type": "log", "level": "info", "message": "m"}
    with transaction() as session:
        ingest(session, claimed, claimed.attempt, [event])


def test_a_claim_has_a_lease_by_the_databases_clock_an_attempt_and_a_running_job() -> None:
    job_id = submit(align())
    claimed = took(runs(job_id)["import"])
    found = run(job_id, "import")
    with transaction() as session:
        now = database_time(session)
    assert found.lease_until is not None
    assert timedelta(seconds=10) < found.lease_until - now <= timedelta(seconds=20)
    assert (claimed.attempt, found.attempt, found.worker) == (1, 1, "w1")
    assert job(job_id).status == "running"
    assert job(job_id).started_at is not None
    assert attempts(claimed.run_id) == [("running", None)]


def test_what_is_not_ready_is_not_claimed() -> None:
    job_id = submit(align())
    assert take(runs(job_id)["train"]) is None
    assert take("run_unknown") is None
    claimed = took(runs(job_id)["import"])
    assert take(claimed.run_id) is None
    finish(claimed)
    assert take(claimed.run_id) is None


def test_ten_copies_of_a_message_have_one_claimant() -> None:
    run_id = runs(submit(align()))["import"]
    with ThreadPoolExecutor(10) as pool:
        claims = list(pool.map(lambda number: take(run_id, f"w{number}"), range(10)))
    assert sum(claimed is not None for claimed in claims) == 1
    assert attempts(run_id) == [("running", None)]


def test_inputs_are_the_files_of_the_upstream_or_a_uri() -> None:
    job_id = submit(align())
    claimed = took(runs(job_id)["import"])
    assert [(given.name, given.files) for given in claimed.inputs] == [("upload", {})]
    assert claimed.inputs[0].uri is not None
    assert claimed.inputs[0].uri.startswith("upload:")
    finish(claimed)
    scored = took(runs(job_id)["score"])
    assert [(given.name, set(given.files)) for given in scored.inputs] == [("samples", {"samples.parquet"})]


def test_renewing_extends_the_lease_even_after_it_ran_out() -> None:
    job_id = submit(align())
    claimed = took(runs(job_id)["import"])
    with transaction() as session:
        past = database_time(session) - timedelta(hours=1)
        session.execute(update(StageRun).values(lease_until=past))
    beat(claimed)
    lease = run(job_id, "import").lease_until
    assert lease is not None
    assert lease > past + timedelta(hours=1)


def test_a_crash_is_tried_again_after_a_pause_up_to_max_attempts() -> None:
    job_id = submit(align())
    run_id = runs(job_id)["import"]
    pauses = []
    for number in (1, 2):
        die(took(run_id))
        found = run(job_id, "import")
        assert found.status == "ready"
        assert found.not_before is not None
        assert found.ready_at is not None
        pauses.append((found.not_before - found.ready_at).total_seconds())
        assert take(run_id) is None, "the pause has not passed"
        assert job(job_id).status == "running"
        let_backoff_pass(run_id)
        assert len(attempts(run_id)) == number
    die(took(run_id))
    assert pauses == [1.0, 2.0]
    assert attempts(run_id) == [("failed", 137)] * 3
    assert statuses(job_id)["import"] == "failed"
    assert job(job_id).error == {**CRASH, "message": "stage import: killed"}


def test_a_defect_is_not_tried_again_and_brings_down_what_waits_for_it() -> None:
    job_id = submit(align())
    finish(took(runs(job_id)["import"]))
    die(took(runs(job_id)["score"]), DEFECT)
    assert statuses(job_id) == {
        "import": "succeeded",
        "score": "failed",
        "grade": "failed",
        "distribution": "failed",
        "train": "failed",
    }
    error = run(job_id, "train").error
    assert error is not None
    assert error["code"] == "upstream_failed"
    found = job(job_id)
    assert found.status == "failed"
    assert found.error == {**DEFECT, "message": "stage score: line 3: no"}
    assert found.finished_at is not None


def test_a_failed_job_lets_go_of_its_other_stages_but_not_of_shared_ones() -> None:
    spec = align(method={"name": "dpo"}, deft=None)  # import, reference, train
    two_imports = spec | {"eval_dataset": "ds_two", "evaluation": {}}
    job_id, other = submit(two_imports), submit(spec)
    with transaction() as session:
        second_import = session.scalars(
            select(StageRun.id).where(StageRun.stage == "import", StageRun.id != runs(other)["import"])
        ).one()
    running = took(second_import)
    shared = took(runs(other)["import"])
    finish(shared)
    die(took(runs(other)["reference"]), DEFECT)
    assert job(other).status == job(job_id).status == "failed"
    with transaction() as session:
        assert session.get_one(StageRun, second_import).stop_requested
    hand_back(running)
    with transaction() as session:
        assert session.get_one(StageRun, second_import).status == "cancelled"
    with pytest.raises(LeaseLost):
        finish(shared)


def test_handing_back_costs_no_attempt_and_rings(rung: list[str]) -> None:
    job_id = submit(align())
    run_id = runs(job_id)["import"]
    for _ in range(5):
        rung.clear()
        hand_back(took(run_id))
        assert statuses(job_id)["import"] == "ready"
        assert rung == [run_id]
    assert run(job_id, "import").attempt == 5
    finish(took(run_id))
    assert [status for status, _ in attempts(run_id)] == ["interrupted"] * 5 + ["succeeded"]


def test_after_another_claim_the_first_one_can_write_nothing() -> None:
    job_id = submit(align())
    first = took(runs(job_id)["import"])
    hand_back(first)
    second = took(first.run_id)
    told = len(events(job_id))
    refuse_all(first)
    assert statuses(job_id)["import"] == "running"
    assert len(events(job_id)) == told
    with transaction() as session:
        assert session.scalars(select(Artifact)).all() == []
    finish(second)
    refuse_all(second)
    assert statuses(job_id)["import"] == "succeeded"


def test_text_that_jsonb_refuses_is_stored_all_the_same() -> None:
    job_id = submit(align())
    finish(took(runs(job_id)["import"]), {"token": "a\x00b\ud800c"})
    assert run(job_id, "import").result == {"token": "a\ufffdb\ufffdc"}
