"""Transitions against each other, from many threads: no deadlock, one terminal state, no event lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import select

from app.db.claims import Claim, LeaseLost
from app.db.models import LIVE_STAGES, TERMINAL_JOBS, JobStage
from app.db.reconcile import reconcile
from app.db.session import transaction
from app.db.transitions import IllegalMove
from app.settings import get_settings
from tests.orchestration_world import (
    align,
    die,
    events,
    finish,
    hand_back,
    job,
    move,
    run,
    runs,
    submit,
    take,
    took,
)

ROUNDS = 15


def at_once(*actions: Callable[[], Any]) -> list[Any]:
    """The results of actions that start at the same moment."""
    barrier = Barrier(len(actions))

    def start(action: Callable[[], Any]) -> Any:
        barrier.wait()
        return action()

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(start, actions))


@pytest.mark.parametrize("ending", [finish, die, hand_back])
def test_cancel_against_the_end_of_a_stage_has_one_terminal_state(ending: Callable[[Claim], None]) -> None:
    for number in range(ROUNDS):
        job_id = submit(align(name=f"round {number}", deft=None), reuse=False)
        at_once(partial(ending, took(runs(job_id)["import"])), partial(move, job_id, "cancel"))
        assert job(job_id).status == "cancelled"
        told = [event.data["status"] for event in events(job_id) if event.type == "job.status"]
        assert told[-1] == "cancelled"
        assert told.count("cancelled") == 1
        assert run(job_id, "train").status == "cancelled"


def test_cancel_against_claim_never_runs_a_cancelled_stage() -> None:
    for number in range(ROUNDS):
        job_id = submit(align(name=f"round {number}", deft=None), reuse=False)
        claimed, _ = at_once(partial(take, runs(job_id)["import"]), partial(move, job_id, "cancel"))
        found = run(job_id, "import")
        if claimed is None:
            assert found.status == "cancelled"
        else:
            assert found.stop_requested
            hand_back(claimed)
        assert job(job_id).status == "cancelled"


def test_two_stages_of_a_job_claimed_at_once_start_it_once() -> None:
    spec = align(deft=None, eval_dataset="ds_two", evaluation={})
    for number in range(ROUNDS):
        job_id = submit(spec | {"name": f"round {number}"}, reuse=False)
        with transaction() as session:
            places = session.scalars(select(JobStage).where(JobStage.job_id == job_id)).all()
            ready = [place.stage_run_id for place in places if place.stage_run.status == "ready"]
        assert len(ready) == 2
        claims = at_once(*(partial(take, run_id) for run_id in ready))
        assert None not in claims
        told = [event.data["status"] for event in events(job_id) if event.type == "job.status"]
        assert told == ["queued", "running"]


def test_everything_at_once_ends_well() -> None:
    """Submitters, movers, workers and reconcilers on shared stages; then every job is driven to its end."""
    specs = [align(name=name, method={"name": name}) for name in ("sft", "dpo")] + [align(deft=None)]
    jobs: list[str] = []

    def submitter(seed: int) -> None:
        jobs.append(submit(specs[seed % 3]))

    def mover(seed: int) -> None:
        chosen = random.Random(seed)
        if jobs:
            with suppress(IllegalMove):
                move(chosen.choice(jobs), chosen.choice(["cancel", "pause", "resume"]))

    def worker(seed: int) -> None:
        chosen = random.Random(seed)
        for run_id in {found for job_id in list(jobs) for found in runs(job_id).values()}:
            claimed = take(run_id)
            if claimed is not None:
                with suppress(LeaseLost):
                    chosen.choice([finish, hand_back])(claimed)

    def reconciler(seed: int) -> None:
        with transaction() as session:
            reconcile(session, get_settings(), {"cpu": 0, "gpu": 0}, take_back=True)

    roles = [submitter, mover, worker, reconciler]
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(roles[seed % 4], seed) for seed in range(80)]:
            future.result()  # a deadlock would raise here
    for job_id in jobs:
        with suppress(IllegalMove):
            move(job_id, "resume")
    while live := [job_id for job_id in jobs if job(job_id).status not in TERMINAL_JOBS]:
        moved = 0
        for run_id in {found for job_id in live for found in runs(job_id).values()}:
            claimed = take(run_id)
            if claimed is not None:
                finish(claimed)
                moved += 1
        assert moved, f"stuck: {[job(job_id).status for job_id in live]}"
    for job_id in jobs:
        told = events(job_id)
        assert [event.seq for event in told] == list(range(1, len(told) + 1))
        ends = [event.data["status"] for event in told if event.type == "job.status"]
        assert ends[-1] == job(job_id).status
        assert not any(run(job_id, stage).status in LIVE_STAGES for stage in runs(job_id))
