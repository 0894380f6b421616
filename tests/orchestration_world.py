"""Jobs for tests of the orchestration: real plans of made-up uploads, and a worker that only writes rows."""

from __future__ import annotations

from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from sqlalchemy import select

from app.db.claims import AttemptEnd, Claim, Output, claim, fail, interrupt, succeed
from app.db.models import Event, Job, JobStage, StageRun
from app.db.session import transaction
from app.db.submit import submit_job
from app.db.transitions import cancel_job, pause_job, resume_job
from app.store import get_store
from deft_engine.canonical import sha256_hex
from deft_engine.errors import StageCrashed
from deft_engine.plan import DatasetRef, External, Made, Plan, Source
from deft_engine.planning import plan_job
from deft_engine.specs import job_spec_adapter
from deft_engine.stages import STAGES, ImportSpec

ENDED = AttemptEnd(exit_code=0, log="")
CRASH = StageCrashed("killed").as_dict()
EMPTY = {"grading.json": b"{}", "qdiff_tokens.json": b"{}", "generations.jsonl": b""}
DEFECT = {"code": "invalid_data", "message": "line 3: no", "hint": "mend it", "retryable": False}
_MOVES = {"cancel": cancel_job, "pause": pause_job, "resume": resume_job}


class Names:
    """Resolves every dataset to an upload of that name, and ``job:<fingerprint>`` to the model made there."""

    def dataset(self, name: str, pointer: str) -> DatasetRef:
        digest = sha256_hex(name.encode())
        return DatasetRef(External(f"upload:{digest}", digest), ImportSpec())

    def model(self, name: str, revision: str | None, pointer: str) -> Source:
        if name.startswith("job:"):
            return Made(name.removeprefix("job:"), "model")
        return External(f"builtin:{name}", f"builtin:{name}@1")


def align(**changes: Any) -> dict[str, Any]:
    """An align job of import, score, grade, distribution and train."""
    deft = {"grader": {"name": "scores"}}
    return {
        "kind": "align",
        "dataset": "ds_one",
        "model": {"base": "tiny"},
        "method": {"name": "sft"},
        "deft": deft,
    } | changes


def plan_of(spec: dict[str, Any]) -> Plan:
    return plan_job(job_spec_adapter.validate_python(spec), Names())


def submit(spec: dict[str, Any], *, reuse: bool = True) -> str:
    """Submit in a transaction of its own; returns the job's id."""
    with transaction() as session:
        parsed = job_spec_adapter.validate_python(spec)
        plan = plan_job(parsed, Names())
        return submit_job(session, parsed, plan, reuse=reuse, created_by=None, dataset_ids=[]).id


def move(job_id: str, name: str) -> None:
    with transaction() as session:
        _MOVES[name](session, job_id)


def take(run_id: str, worker: str = "w1") -> Claim | None:
    with transaction() as session:
        return claim(session, run_id, worker=worker, lease_seconds=20.0)


def took(run_id: str) -> Claim:
    """A claim that must succeed."""
    claimed = take(run_id)
    assert claimed is not None
    return claimed


def finish(claimed: Claim, result: dict[str, Any] | None = None) -> None:
    """Succeed with every output of the stage table; what a report reads is in the store, empty."""
    outputs = []
    for name in STAGES[claimed.stage].outputs:
        file = f"{name}/config.json" if name == "model" else name
        digest = sha256_hex(f"{claimed.fingerprint}/{file}".encode())
        if name in EMPTY:
            with NamedTemporaryFile() as empty:
                empty.write(EMPTY[name])
                empty.flush()
                digest = get_store().put(Path(empty.name))
        outputs.append(Output(file, digest, 7, "text/plain"))
    with transaction() as session:
        succeed(
            session,
            claimed,
            result=result or {"by": claimed.stage},
            manifest={"fingerprint": claimed.fingerprint},
            outputs=outputs,
            ended=ENDED,
        )


def die(claimed: Claim, error: dict[str, Any] = CRASH) -> None:
    with transaction() as session:
        fail(session, claimed, error=error, ended=AttemptEnd(137, "last words"))


def hand_back(claimed: Claim) -> None:
    with transaction() as session:
        interrupt(session, claimed, ended=AttemptEnd(75, ""))


def run_to_end(job_id: str) -> None:
    """Finish every stage of a job, in the plan's order."""
    for stage in runs(job_id):
        if run(job_id, stage).status == "ready":
            finish(took(runs(job_id)[stage]))


def runs(job_id: str) -> dict[str, str]:
    """Stage name -> stage run's id, in the plan's order."""
    with transaction() as session:
        rows = session.execute(
            select(StageRun.stage, StageRun.id)
            .join(JobStage, JobStage.stage_run_id == StageRun.id)
            .where(JobStage.job_id == job_id)
            .order_by(JobStage.position)
        )
        return dict(rows.all())


def run(job_id: str, stage: str) -> StageRun:
    with transaction() as session:
        return session.get_one(StageRun, runs(job_id)[stage])


def statuses(job_id: str) -> dict[str, str]:
    """Stage name -> status."""
    return {stage: run(job_id, stage).status.value for stage in runs(job_id)}


def job(job_id: str) -> Job:
    with transaction() as session:
        return session.get_one(Job, job_id)


def events(job_id: str) -> list[Event]:
    with transaction() as session:
        return list(session.scalars(select(Event).where(Event.job_id == job_id).order_by(Event.seq)))
