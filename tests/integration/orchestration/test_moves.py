from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from app.db.claims import Claim, renew
from app.db.graph import Wanted
from app.db.session import transaction
from app.db.transitions import IllegalMove
from tests.orchestration_world import (
    DEFECT,
    align,
    die,
    events,
    finish,
    hand_back,
    job,
    move,
    run,
    run_to_end,
    runs,
    statuses,
    submit,
    take,
    took,
)


def wanted_of(claimed: Claim) -> Wanted:
    with transaction() as session:
        return renew(session, claimed, lease_seconds=20)


def job_statuses(job_id: str) -> list[str]:
    return [event.data["status"] for event in events(job_id) if event.type == "job.status"]


def test_a_queued_job_is_cancelled_at_once() -> None:
    job_id = submit(align())
    move(job_id, "cancel")
    assert set(statuses(job_id).values()) == {"cancelled"}
    assert job_statuses(job_id) == ["queued", "cancelling", "cancelled"]
    assert take(runs(job_id)["import"]) is None


def test_a_running_stage_is_asked_to_stop_and_the_job_ends_with_it() -> None:
    job_id = submit(align())
    claimed = took(runs(job_id)["import"])
    assert wanted_of(claimed) is Wanted.RUN
    move(job_id, "cancel")
    assert job(job_id).status == "cancelling"
    assert wanted_of(claimed) is Wanted.CANCEL
    hand_back(claimed)
    assert job(job_id).status == "cancelled"
    assert statuses(job_id)["import"] == "cancelled"
    assert job(job_id).finished_at is not None


def test_a_stage_that_finishes_while_cancelling_is_kept_for_others() -> None:
    job_id = submit(align())
    claimed = took(runs(job_id)["import"])
    move(job_id, "cancel")
    finish(claimed)
    assert job(job_id).status == "cancelled"
    assert statuses(job_id) == {"import": "succeeded"} | dict.fromkeys(
        ("score", "grade", "distribution", "train"), "cancelled"
    )
    assert statuses(submit(align()))["score"] == "ready"


def test_a_stage_that_dies_while_cancelling_is_not_tried_again() -> None:
    job_id = submit(align())
    claimed = took(runs(job_id)["import"])
    move(job_id, "cancel")
    die(claimed)
    assert job(job_id).status == "cancelled"
    assert statuses(job_id)["import"] == "cancelled"


def test_cancelling_leaves_a_stage_running_that_another_live_job_needs() -> None:
    first, second = submit(align()), submit(align(method={"name": "dpo"}))
    claimed = took(runs(first)["import"])
    move(first, "cancel")
    assert job(first).status == "cancelled"
    assert wanted_of(claimed) is Wanted.RUN
    assert statuses(first)["train"] == "cancelled"
    finish(claimed)
    assert statuses(second)["score"] == "ready"
    move(second, "cancel")
    assert statuses(second)["score"] == "cancelled"


def evaluation_of(maker: str) -> dict[str, Any]:
    """An evaluate job of the model that another job makes."""
    model = {"base": f"job:{run(maker, 'train').fingerprint}"}
    return {"kind": "evaluate", "eval_dataset": "ds_two", "model": model}


def test_a_stage_is_needed_by_jobs_that_wait_for_it_from_outside_their_plan() -> None:
    maker = submit(align())
    user = submit(evaluation_of(maker))
    move(maker, "cancel")
    assert job(maker).status == "cancelled"
    assert statuses(maker) == {
        "import": "ready",
        "score": "waiting",
        "grade": "waiting",
        "distribution": "waiting",
        "train": "waiting",
    }
    claimed = took(runs(maker)["import"])
    move(user, "cancel")
    assert set(statuses(user).values()) == {"cancelled"}
    assert wanted_of(claimed) is Wanted.CANCEL  # nobody is left who wants what it leads to
    hand_back(claimed)
    assert set(statuses(maker).values()) == {"cancelled"}


def test_a_paused_stage_is_revived_by_a_job_that_waits_for_it_from_outside_its_plan() -> None:
    maker = submit(align())
    move(maker, "pause")
    user = submit(evaluation_of(maker))
    assert statuses(maker)["import"] == "ready"
    assert job(maker).status == "paused"
    move(user, "pause")
    assert set(statuses(maker).values()) == {"paused"}
    move(user, "resume")
    assert statuses(maker)["import"] == "ready"


def test_pause_keeps_the_stages_and_resume_goes_on() -> None:
    job_id = submit(align())
    claimed = took(runs(job_id)["import"])
    move(job_id, "pause")
    assert job(job_id).status == "pausing"
    assert wanted_of(claimed) is Wanted.PAUSE
    hand_back(claimed)
    assert job(job_id).status == "paused"
    assert set(statuses(job_id).values()) == {"paused"}
    assert take(claimed.run_id) is None
    move(job_id, "resume")
    assert job(job_id).status == "queued"
    assert statuses(job_id)["import"] == "ready"
    assert statuses(job_id)["score"] == "waiting"
    run_to_end(job_id)
    assert job_statuses(job_id) == [
        "queued", "running", "pausing", "paused", "queued", "running", "succeeded",
    ]  # fmt: skip


def test_resume_before_the_stage_has_stopped_lets_it_go_on() -> None:
    job_id = submit(align())
    claimed = took(runs(job_id)["import"])
    move(job_id, "pause")
    move(job_id, "resume")
    assert job(job_id).status == "running"
    assert wanted_of(claimed) is Wanted.RUN
    hand_back(claimed)  # it had been told to stop all the same
    assert statuses(job_id)["import"] == "ready"


def test_the_last_stage_finishing_while_pausing_ends_the_job() -> None:
    job_id = submit(align(deft=None))
    finish(took(runs(job_id)["import"]))
    claimed = took(runs(job_id)["train"])
    move(job_id, "pause")
    finish(claimed)
    assert job(job_id).status == "succeeded"


def test_a_paused_stage_is_revived_by_another_job_that_needs_it() -> None:
    first = submit(align())
    move(first, "pause")
    second = submit(align(name="second"))
    assert runs(first) == runs(second)
    assert statuses(second)["import"] == "ready"
    assert (job(first).status, job(second).status) == ("paused", "queued")
    move(second, "cancel")
    assert set(statuses(first).values()) == {"paused"}
    move(first, "resume")
    run_to_end(first)
    assert job(first).status == "succeeded"


def test_a_stage_asked_to_stop_goes_on_when_a_new_job_joins_it() -> None:
    first = submit(align())
    claimed = took(runs(first)["import"])
    move(first, "cancel")
    second = submit(align(name="second"))
    assert wanted_of(claimed) is Wanted.RUN
    hand_back(claimed)
    assert statuses(second)["import"] == "ready"
    assert job(first).status == "cancelled"


def test_a_paused_job_fails_with_a_shared_stage() -> None:
    first = submit(align())
    second = submit(align(name="second"))
    claimed = took(runs(first)["import"])
    move(first, "pause")
    assert job(first).status == "paused"
    die(claimed, DEFECT)
    assert job(first).status == job(second).status == "failed"


@pytest.mark.parametrize(
    ("moves", "illegal", "allowed"),
    [
        ([], "resume", ["cancel", "pause"]),
        (["pause"], "pause", ["cancel", "resume"]),
        (["cancel"], "cancel", []),
        (["cancel"], "pause", []),
        (["cancel"], "resume", []),
    ],
)
def test_illegal_moves_list_the_allowed_ones(moves: list[str], illegal: str, allowed: list[str]) -> None:
    job_id = submit(align())
    for legal in moves:
        move(job_id, legal)
    before = events(job_id)
    with pytest.raises(IllegalMove) as refused:
        move(job_id, illegal)
    assert refused.value.allowed == allowed
    assert len(events(job_id)) == len(before)


def test_event_numbers_are_dense_and_times_in_order() -> None:
    job_id = submit(align())
    run_to_end(job_id)
    told = events(job_id)
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    assert all(earlier.time <= later.time for earlier, later in pairwise(told))
    assert job(job_id).event_seq == len(told)
    assert {event.type for event in told} == {"job.status", "stage.status"}
