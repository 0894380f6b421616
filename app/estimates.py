"""Dry runs: what a job would cost, given what the database knows."""

from __future__ import annotations

from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import Session

from app.db.models import Dataset, StageInput, StageRun, StageStatus
from app.resolver import dataset_ref
from deft_engine.estimate import CHARS_PER_TOKEN, FLOPS_PER_SECOND, DataFacts, Estimator, StageCost
from deft_engine.plan import External, Made, Plan, plan_dataset
from deft_engine.specs import Job


class StageEstimate(BaseModel):
    """A stage's cost; null where it cannot be known yet."""

    model_config = ConfigDict(from_attributes=True)

    stage: str
    fingerprint: str
    reused: bool
    samples: int | None
    steps: int | None
    tokens: int | None
    memory_bytes: int | None
    seconds: float | None


class Estimate(BaseModel):
    """What a job would cost. The totals leave out stages that are there already."""

    object: Literal["estimate"] = "estimate"
    kind: str
    spec: dict[str, Any]
    stages: list[StageEstimate]
    steps: int
    tokens: int
    memory_bytes: int | None
    """Of the stage that needs most."""
    seconds: float
    complete: bool
    """False: some stage's figures are null, and the totals are without them."""
    assumptions: list[str]
    warnings: list[str]


def estimate_job(
    session: Session,
    spec: Job,
    plan: Plan,
    datasets: dict[str, Dataset],
    *,
    reuse: bool,
) -> Estimate:
    """The estimate of a job's plan; ``reuse`` as the job is to be sent."""
    facts = {
        plan_dataset(dataset_ref(dataset)).fingerprint: DataFacts.of_summary(dataset.summary)
        for dataset in datasets.values()
        if dataset.summary is not None and dataset.answers_dataset_id is None
    }
    costs = Estimator(plan, facts, lambda made: _root_of(session, made)).costs()
    done = _done(session, plan) if reuse else set()
    stages = [_view(cost, reused=cost.fingerprint in done) for cost in costs]
    needed = [stage for stage in stages if not stage.reused]
    return Estimate(
        kind=spec.kind,
        spec=spec.model_dump(mode="json"),
        stages=stages,
        steps=sum(stage.steps or 0 for stage in needed),
        tokens=sum(stage.tokens or 0 for stage in needed),
        memory_bytes=max((stage.memory_bytes for stage in needed if stage.memory_bytes), default=None),
        seconds=sum(stage.seconds or 0.0 for stage in needed),
        complete=all(stage.tokens is not None for stage in needed),
        assumptions=[
            f"a token is {CHARS_PER_TOKEN:g} characters",
            f"the machine does {FLOPS_PER_SECOND:g} floating-point operations a second (a small CPU)",
            "float32, Adam, no offloading",
        ],
        warnings=plan.warnings,
    )


def _view(cost: StageCost, *, reused: bool) -> StageEstimate:
    names = ("stage", "fingerprint", "samples", "steps", "tokens", "memory_bytes", "seconds")
    return StageEstimate(**{name: getattr(cost, name) for name in names}, reused=reused)


def _done(session: Session, plan: Plan) -> set[str]:
    return set(
        session.scalars(
            sa.select(StageRun.fingerprint).where(
                StageRun.fingerprint.in_([stage.fingerprint for stage in plan.stages]),
                StageRun.status == StageStatus.SUCCEEDED,
                StageRun.reusable,
            )
        )
    )


def _root_of(session: Session, made: Made) -> External | None:
    """Follow the inputs ``model`` from a stage run up to the model from outside."""
    run_id = session.scalar(sa.select(StageRun.id).where(StageRun.fingerprint == made.fingerprint).limit(1))
    while run_id is not None:
        source = session.get(StageInput, (run_id, "model"))
        if source is None:
            return None
        if source.uri is not None:
            return External(source.uri, source.identity)
        run_id = source.upstream_id
    return None
