"""What a worker may do to a stage run: a claim is a lease and an attempt number, which every write carries.

Each function but ``claim`` compares and sets: if the stage run is no longer in this attempt, nothing is
written and :class:`LeaseLost` is raised; :func:`note_refusal` is what the worker does then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from app.db.augmented import keep_as_dataset
from app.db.events import announce_stage, storable
from app.db.graph import Wanted, end, put_back, refresh_jobs, wanted
from app.db.locks import database_time, lock_graph, share_graph
from app.db.models import (
    Artifact,
    Attempt,
    AttemptStatus,
    AuditEntry,
    Json,
    StageInput,
    StageRun,
    StageStatus,
)
from app.ids import new_id

WRITE_REFUSED = "stage.write_refused"
"""The audit log's name for a worker whose write was refused, because its lease was gone."""

_FIRST_BACKOFF_SECONDS = 1.0


class LeaseLost(Exception):
    """The stage run is no longer in the attempt that wanted to write."""


@dataclass(frozen=True, slots=True)
class ClaimedInput:
    """An input of a claimed stage run: ``uri``, or the files that another run made (name -> SHA-256)."""

    name: str
    identity: str
    uri: str | None
    output: str | None
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run a stage, and all that is needed for it."""

    run_id: str
    attempt: int
    stage: str
    fingerprint: str
    spec: Json
    inputs: tuple[ClaimedInput, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """A file that a stage made, already in the store."""

    name: str
    sha256: str
    size: int
    media_type: str


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """What is kept of an attempt's process: its exit status, and the end of what it printed."""

    exit_code: int | None
    log: str


def claim(session: Session, run_id: str, *, worker: str, lease_seconds: float) -> Claim | None:
    """Take a ready stage run, or return None if it is not (or no longer) to be had.

    One UPDATE tests and sets the state: of any number of claimants, those that wait for the row's lock test
    the state again when they get it, so one wins. The lease runs by the database's clock.
    """
    share_graph(session)
    run = session.scalars(
        update(StageRun)
        .where(
            StageRun.id == run_id,
            StageRun.status == StageStatus.READY,
            or_(StageRun.not_before.is_(None), StageRun.not_before <= func.clock_timestamp()),
        )
        .values(
            status=StageStatus.RUNNING,
            attempt=StageRun.attempt + 1,
            lease_until=func.clock_timestamp() + timedelta(seconds=lease_seconds),
            worker=worker,
            started_at=func.coalesce(StageRun.started_at, func.clock_timestamp()),
        )
        .returning(StageRun)
        .execution_options(populate_existing=True)
    ).first()
    if run is None:
        return None
    session.add(Attempt(stage_run_id=run.id, number=run.attempt, worker=worker, status=AttemptStatus.RUNNING))
    announce_stage(session, run)
    refresh_jobs(session, [run])  # their rows are locked: announcing counted up their events
    return Claim(run.id, run.attempt, run.stage, run.fingerprint, run.spec, _claimed_inputs(session, run))


def renew(session: Session, claim: Claim, *, lease_seconds: float) -> Wanted:
    """Extend the lease; returns whether to go on, or what the stage run is to be stopped for.

    A lease that ran out while nobody else took the stage run is renewed: the attempt is what counts.
    """
    run = session.scalars(
        update(StageRun)
        .where(*_in_attempt(claim))
        .values(lease_until=func.clock_timestamp() + timedelta(seconds=lease_seconds))
        .returning(StageRun)
        .execution_options(populate_existing=True)
    ).first()
    if run is None:
        raise refused(claim)
    return wanted(session, run) if run.stop_requested else Wanted.RUN


def succeed(
    session: Session,
    claim: Claim,
    *,
    result: Json,
    manifest: Json,
    outputs: Sequence[Output],
    ended: AttemptEnd,
) -> None:
    """The stage is done and its outputs are in the store. A stop that was asked for comes too late."""
    run = _held_alone(session, claim)
    run.result = storable(result)
    run.manifest = storable(manifest)
    if run.stage == "augment":
        (file,) = outputs
        run.result = {**run.result, "dataset": keep_as_dataset(session, run, file.sha256, file.size)}
    _keep(session, run, outputs)
    end_attempt(session, run, AttemptStatus.SUCCEEDED, ended)
    end(session, run, StageStatus.SUCCEEDED)
    refresh_jobs(session, [run])


def fail(
    session: Session,
    claim: Claim,
    *,
    error: Mapping[str, object],
    ended: AttemptEnd,
    outputs: Sequence[Output] = (),
) -> None:
    """The attempt failed; if another may help (``error["retryable"]``) and is left, the stage runs again.

    Args:
        outputs: what tells more of an error that is not retryable.
    """
    run = _held_alone(session, claim)
    _keep(session, run, outputs)
    end_attempt(session, run, AttemptStatus.FAILED, ended, dict(error))
    retry_or_fail(session, run, dict(error))


def interrupt(session: Session, claim: Claim, *, ended: AttemptEnd) -> None:
    """The stage was stopped: by cancel or pause, or because the worker is leaving and another is to go on."""
    run = _held_alone(session, claim)
    end_attempt(session, run, AttemptStatus.INTERRUPTED, ended)
    put_back(session, run)
    refresh_jobs(session, [run])


def retry_or_fail(session: Session, run: StageRun, error: Json) -> None:
    """After an attempt that died: again, after a pause that doubles, until ``max_attempts`` have died."""
    session.flush()
    died = session.scalars(
        select(func.count())
        .select_from(Attempt)
        .where(
            Attempt.stage_run_id == run.id,
            Attempt.status.in_([AttemptStatus.FAILED, AttemptStatus.LOST]),
        )
    ).one()
    if error.get("retryable") and died < run.max_attempts:
        put_back(session, run, delay=_FIRST_BACKOFF_SECONDS * 2 ** (died - 1))
        refresh_jobs(session, [run])
    else:
        refresh_jobs(session, end(session, run, StageStatus.FAILED, storable(error)))


def end_attempt(
    session: Session,
    run: StageRun,
    status: AttemptStatus,
    ended: AttemptEnd | None,
    error: Json | None = None,
) -> None:
    """Close the newest attempt; ``ended`` is None where its worker left no word."""
    attempt = session.get_one(Attempt, (run.id, run.attempt))
    attempt.status = status
    attempt.error = storable(error)
    attempt.finished_at = database_time(session)
    if ended is not None:
        attempt.exit_code = ended.exit_code
        attempt.log = storable(ended.log)


def refused(claim: Claim) -> LeaseLost:
    """The error for a write that came too late."""
    return LeaseLost(f"attempt {claim.attempt} of {claim.run_id} is over")


def note_refusal(session: Session, claim: Claim) -> None:
    """Write down, for good, that a write of this attempt's worker was refused."""
    worker = session.get_one(Attempt, (claim.run_id, claim.attempt)).worker
    detail = {"attempt": claim.attempt}
    session.add(AuditEntry(actor=worker, action=WRITE_REFUSED, target=claim.run_id, detail=detail))


def hold(session: Session, claim: Claim) -> StageRun:
    """Lock the stage run if it is still in this attempt, with the graph locked or shared.

    Raises:
        LeaseLost: it is not.
    """
    run = session.scalars(
        select(StageRun)
        .where(*_in_attempt(claim))
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).first()
    if run is None:
        raise refused(claim)
    return run


def _keep(session: Session, run: StageRun, outputs: Sequence[Output]) -> None:
    session.add_all(
        Artifact(
            id=new_id("art"),
            stage_run_id=run.id,
            name=output.name,
            sha256=output.sha256,
            size=output.size,
            media_type=output.media_type,
        )
        for output in outputs
    )


def _held_alone(session: Session, claim: Claim) -> StageRun:
    lock_graph(session)
    return hold(session, claim)


def _in_attempt(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (
        StageRun.id == claim.run_id,
        StageRun.attempt == claim.attempt,
        StageRun.status == StageStatus.RUNNING,
    )


def _claimed_inputs(session: Session, run: StageRun) -> tuple[ClaimedInput, ...]:
    rows = session.scalars(
        select(StageInput).where(StageInput.stage_run_id == run.id).order_by(StageInput.name)
    )
    return tuple(
        ClaimedInput(row.name, row.identity, row.uri, row.output, _files(session, row)) for row in rows
    )


def _files(session: Session, row: StageInput) -> dict[str, str]:
    """The artifacts of an output: the file of its name, or the files below the folder of its name."""
    if row.upstream_id is None or row.output is None:
        return {}
    artifacts = session.execute(
        select(Artifact.name, Artifact.sha256).where(Artifact.stage_run_id == row.upstream_id)
    )
    return {name: sha for name, sha in artifacts if name == row.output or name.startswith(f"{row.output}/")}
