"""A job that runs: followed by a stream that breaks, paused, resumed, cancelled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from deft_client.errors import Conflict, JobFailed
from deft_client.models import Dataset, Job
from tests.e2e.e2e_data import TRAINING
from tests.whole_service import JOB_SECONDS, WholeService

pytestmark = pytest.mark.timeout(900)  # a fixture waits for all stages of its job

LONG_STEPS = 100


def long_job(train_data: Dataset, steps: int) -> dict[str, Any]:
    return {
        "kind": "reward_model",
        "dataset": train_data.id,
        "model": {"base": "tiny"},
        "training": {**TRAINING, "max_steps": steps, "batch_size": 16, "checkpoint_every": 20},
    }


@contextmanager
def stream(service: WholeService, job_id: str, last: int) -> Iterator[Iterator[dict[str, Any]]]:
    """A job's events behind ``last`` as server-sent events; ``id:`` is checked against the event's number."""
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(last)}
    timeout = httpx.Timeout(60.0, read=JOB_SECONDS)
    with service.http.stream("GET", f"/jobs/{job_id}/events", headers=headers, timeout=timeout) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        yield _parsed(answer.iter_lines())


def _parsed(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(": ")
        if name and colon:
            fields[name] = value
        elif not line and "data" in fields:
            event = json.loads(fields["data"])
            assert (fields["id"], fields["event"]) == (str(event["seq"]), event["type"])
            yield event
            fields = {}


def until_step(events: Iterator[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    """Events up to the first that tells of this step of training."""
    seen = []
    for event in events:
        seen.append(event)
        if event["type"] == "metrics" and event["data"]["step"] >= step:
            return seen
    raise AssertionError(f"the stream ended before step {step}")


@dataclass(frozen=True)
class Paused:
    """A job that was paused in the middle of its training and then ran to its end."""

    job: Job
    paused_at: int
    streamed: list[dict[str, Any]]
    """Its events as three streams gave them, each going on behind the one before."""


@pytest.fixture(scope="module")
def paused(whole_service: WholeService, train_data: Dataset) -> Paused:
    client = whole_service.client
    job = client.jobs.create(long_job(train_data, LONG_STEPS))
    with stream(whole_service, job.id, 0) as events:
        seen = until_step(events, 2)
    client.jobs.pause(job.id)
    with stream(whole_service, job.id, seen[-1]["seq"]) as events:
        for event in events:
            seen.append(event)
            if (event["type"], event["data"].get("status")) == ("job.status", "paused"):
                break
    assert client.jobs.retrieve(job.id).status == "paused"
    steps = [event["data"]["step"] for event in seen if event["type"] == "metrics"]
    client.jobs.resume(job.id)
    with stream(whole_service, job.id, seen[-1]["seq"]) as events:
        seen += events
    return Paused(whole_service.ended(job.id), max(steps), seen)


def test_a_paused_job_ends_with_the_weights_of_an_undisturbed_one(
    whole_service: WholeService, train_data: Dataset, paused: Paused
) -> None:
    assert 2 <= paused.paused_at < LONG_STEPS
    anew = whole_service.run(long_job(train_data, LONG_STEPS), reuse=False)
    trained = {stage.name: stage for stage in anew.stages}["train_reward"]
    assert not trained.reused
    assert trained.run != {stage.name: stage for stage in paused.job.stages}["train_reward"].run
    weights = []
    for job in (paused.job, anew):
        announced = {each.name: each.sha256 for each in whole_service.client.jobs.artifacts(job.id)}
        weights.append(announced["model/model.safetensors"])
    assert weights[0] == weights[1]
    attempts = whole_service.http.get(f"/jobs/{paused.job.id}/attempts").json()["data"]
    assert [a["status"] for a in attempts if a["stage"] == "train_reward"] == ["interrupted", "succeeded"]
    loss = [
        whole_service.client.jobs.metrics(job.id, ["loss", "grad_norm"]).data for job in (paused.job, anew)
    ]
    for resumed, undisturbed in zip(*loss, strict=True):
        assert [point[:2] for point in resumed.points] == [point[:2] for point in undisturbed.points]


def test_broken_streams_go_on_without_gap_or_repeat(whole_service: WholeService, paused: Paused) -> None:
    listed: list[dict[str, Any]] = []
    while True:
        after = listed[-1]["seq"] if listed else 0
        page = whole_service.http.get(
            f"/jobs/{paused.job.id}/events", params={"after": after, "limit": 100}
        ).json()
        listed += page["data"]
        if not page["has_more"]:
            break
    assert [event["seq"] for event in listed] == list(range(1, len(listed) + 1))
    assert paused.streamed == listed
    said = [event["data"]["status"] for event in listed if event["type"] == "job.status"]
    assert said == ["queued", "running", "pausing", "paused", "queued", "running", "succeeded"]
    assert [event.seq for event in whole_service.client.jobs.events(paused.job.id, after=5)] == list(
        range(6, len(listed) + 1)
    )
    ended = whole_service.http.get(
        f"/jobs/{paused.job.id}/events",
        headers={"Accept": "text/event-stream", "Last-Event-ID": str(len(listed))},
    )
    assert ended.status_code == 204


def test_one_series_over_the_pause_thinned_to_its_extremes(
    whole_service: WholeService, paused: Paused
) -> None:
    metrics = whole_service.client.jobs.metrics
    (whole,) = metrics(paused.job.id, ["loss"]).data
    assert [step for step, _, _ in whole.points] == list(range(1, LONG_STEPS + 1))
    (thin,) = metrics(paused.job.id, ["loss"], max_points=10).data
    assert thin.n == LONG_STEPS
    assert len(thin.points) <= 10
    assert set(thin.points) <= set(whole.points)
    values = [value for _, value, _ in whole.points]
    kept = [value for _, value, _ in thin.points]
    assert (min(kept), max(kept)) == (min(values), max(values))  # type: ignore[type-var]
    assert (thin.points[0], thin.points[-1]) == (whole.points[0], whole.points[-1])
    (window,) = metrics(paused.job.id, ["loss"], from_step=30, to_step=39).data
    assert window.points == whole.points[29:39]


def test_a_cancelled_job_stops_and_never_changes_again(
    whole_service: WholeService, train_data: Dataset
) -> None:
    client = whole_service.client
    job = client.jobs.create(long_job(train_data, 100_000))
    with stream(whole_service, job.id, 0) as events:
        until_step(events, 1)
        client.jobs.cancel(job.id)
        last = list(events)[-1]
    assert (last["type"], last["data"]["status"]) == ("job.status", "cancelled")
    with pytest.raises(JobFailed, match="cancelled"):
        client.jobs.wait(job.id)
    for move in (client.jobs.resume, client.jobs.pause, client.jobs.cancel):
        with pytest.raises(Conflict):
            move(job.id)
    assert client.jobs.retrieve(job.id).status == "cancelled"
