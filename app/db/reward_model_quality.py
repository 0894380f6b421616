"""What is known of the reward models behind a table: their own held-out figures, as warnings."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from app.db.models import StageInput, StageRun, StageStatus

_INPUT = "reward_model"


def reward_model_warnings(session: Session, run_ids: Iterable[str]) -> list[str]:
    """A warning for each reward model that these stage runs used and that is known to be no better than
    "longer wins": by an evaluation of its own, or by the figures of its training."""
    used = session.execute(
        select(StageInput.identity, StageInput.upstream_id)
        .where(StageInput.stage_run_id.in_(list(run_ids)), StageInput.name == _INPUT)
        .distinct()
        .order_by(StageInput.identity)
    ).all()
    runs = [
        *_evaluations(session, [identity for identity, _ in used]),
        *_trainings(session, [upstream for _, upstream in used if upstream is not None]),
    ]
    told = [str(warning) for run in runs for warning in (run.result or {}).get("warnings", ())]
    return list(dict.fromkeys(told))


def _evaluations(session: Session, identities: Iterable[str]) -> Iterable[StageRun]:
    """Runs of ``reward_quality`` over scores of these models."""
    scored = aliased(StageInput)
    return session.scalars(
        select(StageRun)
        .join(StageInput, (StageInput.stage_run_id == StageRun.id) & (StageInput.name == "scores"))
        .join(scored, (scored.stage_run_id == StageInput.upstream_id) & (scored.name == _INPUT))
        .where(
            StageRun.stage == "reward_quality",
            StageRun.status == StageStatus.SUCCEEDED,
            scored.identity.in_(list(identities)),
        )
        .order_by(StageRun.finished_at, StageRun.id)
    )


def _trainings(session: Session, run_ids: Iterable[str]) -> Iterable[StageRun]:
    return session.scalars(
        select(StageRun)
        .where(StageRun.id.in_(list(run_ids)), StageRun.stage == "train_reward")
        .order_by(StageRun.id)
    )
