"""How far an experiment is, and what it has cost: both follow from its jobs' stage runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.db.models import TERMINAL_JOBS, Job, JobStatus, StageRun, StageStatus


def experiment_status(jobs: Collection[JobStatus]) -> JobStatus:
    """While jobs are live what most speaks for them; at the end the worst outcome of any job."""
    live = [status for status in jobs if status not in TERMINAL_JOBS]
    if live:
        ranked = (JobStatus.CANCELLING, JobStatus.RUNNING, JobStatus.PAUSING, JobStatus.QUEUED)
        found = next((status for status in ranked if status in live), JobStatus.PAUSED)
        begun = found is JobStatus.QUEUED and len(live) < len(jobs)
        return JobStatus.RUNNING if begun else found
    for status in (JobStatus.FAILED, JobStatus.CANCELLED):
        if status in jobs:
            return status
    return JobStatus.SUCCEEDED


@dataclass(frozen=True, slots=True)
class Cost:
    """What stage runs have cost; a run that several jobs share counts once."""

    runs: int
    """Stage runs that succeeded."""
    steps: int
    """Optimiser steps."""
    trained_tokens: int
    tokens: int
    """Trained on, read by the reference model and generated."""
    seconds: float
    """From start to end of each, added up."""
    cpu_seconds: float | None
    """Seconds of all cores together; null where no run recorded them."""
    peak_memory_bytes: int | None
    """Of the run that needed most."""
    peak_gpu_memory_bytes: int | None


def cost_of(runs: Iterable[StageRun]) -> Cost:
    """The cost of those that succeeded."""
    done = {run.id: run for run in runs if run.status is StageStatus.SUCCEEDED}.values()
    results = [run.result or {} for run in done]
    manifests = [run.manifest or {} for run in done]
    usages = [manifest.get("usage", {}) for manifest in manifests]
    return Cost(
        runs=len(done),
        steps=sum(int(result.get("steps", 0)) for result in results),
        trained_tokens=sum(int((run.result or {}).get("tokens", 0)) for run in done if run.stage == "train"),
        tokens=sum(int(result.get("tokens", 0)) for result in results),
        seconds=round(sum(map(_seconds, manifests)), 3),
        cpu_seconds=_total(usage.get("cpu_seconds") for usage in usages),
        peak_memory_bytes=_most(usage.get("peak_memory_bytes") for usage in usages),
        peak_gpu_memory_bytes=_most(usage.get("peak_gpu_memory_bytes") for usage in usages),
    )


def _seconds(manifest: Mapping[str, Any]) -> float:
    if "finished_at" not in manifest:
        return 0.0
    started, finished = (datetime.fromisoformat(manifest[key]) for key in ("started_at", "finished_at"))
    return (finished - started).total_seconds()


def _total(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known), 3) if known else None


def _most(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


@dataclass(frozen=True, slots=True)
class ArmCost:
    """What one model of an arm has cost, mean over its jobs that are done.

    Stages that other jobs share count in full: it is what the arm would have cost alone, grading included.
    """

    jobs: int
    steps: float
    trained_tokens: float
    tokens: float
    seconds: float
    cpu_seconds: float | None
    peak_memory_bytes: int | None
    peak_gpu_memory_bytes: int | None
    trained_share: float | None
    """Samples of the levels that were trained on, of all samples of the dataset."""


def arm_cost(jobs: Sequence[Job]) -> ArmCost:
    """The cost of an arm, of those of its jobs that have succeeded."""
    done = [job for job in jobs if job.status is JobStatus.SUCCEEDED]
    costs = [cost_of(stage.stage_run for stage in job.stages) for job in done]
    n = max(1, len(costs))
    cpu_seconds = _total(cost.cpu_seconds for cost in costs)
    return ArmCost(
        jobs=len(costs),
        steps=sum(cost.steps for cost in costs) / n,
        trained_tokens=sum(cost.trained_tokens for cost in costs) / n,
        tokens=sum(cost.tokens for cost in costs) / n,
        seconds=round(sum(cost.seconds for cost in costs) / n, 3),
        cpu_seconds=None if cpu_seconds is None else round(cpu_seconds / n, 3),
        peak_memory_bytes=_most(cost.peak_memory_bytes for cost in costs),
        peak_gpu_memory_bytes=_most(cost.peak_gpu_memory_bytes for cost in costs),
        trained_share=trained_share(done[0]) if done else None,
    )


def trained_share(job: Job) -> float | None:
    """Which part of the data a job was trained on, by its grading; None for a job that trains nothing."""
    runs = {stage.stage_run.stage: stage.stage_run for stage in job.stages}
    if "train" not in runs:
        return None
    levels = runs["train"].spec["levels"]
    if not levels:
        return 1.0
    sizes = (runs["grade"].result or {}).get("levels", {})
    total = sum(sizes.values())
    return sum(sizes.get(level, 0) for level in levels) / total if total else None
