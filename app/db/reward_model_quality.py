"""What is known of the reward models behind a table: their own held-out figures, as warnings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from app.db.models import StageInput, StageRun, StageStatus

_INPUT = "reward_model"
_USED_BY = re.compile(r"used by [a-z_, ]+: ")


def reward_model_warnings(session: Session, run_ids: Iterable[str]) -> list[str]:
    """A warning for each reward model that these stage runs used and that is known to be no better than
    "longer wins", by an evaluation of its own or by the figures of its training; it names the stages that
    used the model."""
    used = session.execute(
        select(StageInput.identity, StageInput.upstream_id, StageRun.stage)
        .join(StageRun, StageRun.id == StageInput.stage_run_id)
        .where(StageInput.stage_run_id.in_(list(run_ids)), StageInput.name == _INPUT)
        .distinct()
        .order_by(StageInput.identity, StageInput.upstream_id, StageRun.stage)
    ).all()
    told: list[str] = []
    for (identity, upstream), uses in groupby(used, key=lambda each: (each[0], each[1])):
        stages = ", ".join(stage for *_, stage in uses)
        for run in [*_evaluations(session, identity), *_trainings(session, upstream)]:
            told += (f"used by {stages}: {text}" for text in (run.result or {}).get("warnings", ()))
    return list(dict.fromkeys(told))


def without_stages(warning: str) -> str:
    """What such a warning says of its model, whichever stages used it; any other warning as it is."""
    return _USED_BY.sub("", warning, count=1)


def _evaluations(session: Session, identity: str) -> Iterable[StageRun]:
    """Runs of ``reward_quality`` over scores of this model."""
    scored = aliased(StageInput)
    return session.scalars(
        select(StageRun)
        .join(StageInput, (StageInput.stage_run_id == StageRun.id) & (StageInput.name == "scores"))
        .join(scored, (scored.stage_run_id == StageInput.upstream_id) & (scored.name == _INPUT))
        .where(
            StageRun.stage == "reward_quality",
            StageRun.status == StageStatus.SUCCEEDED,
            scored.identity == identity,
        )
        .order_by(StageRun.finished_at, StageRun.id)
    )


def _trainings(session: Session, run_id: str | None) -> Iterable[StageRun]:
    """The run that trained it, if one did."""
    return session.scalars(select(StageRun).where(StageRun.id == run_id, StageRun.stage == "train_reward"))
