"""Real workers for tests: Celery in a process of its own, fed with real uploads, watched by the database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil
from sqlalchemy import select

from app.db.models import TERMINAL_JOBS, Artifact, Metric
from app.db.session import transaction
from app.db.submit import submit_job
from app.settings import get_settings
from app.store import get_store
from deft_engine.plan import DatasetRef, External, Source
from deft_engine.planning import plan_job
from deft_engine.specs import job_spec_adapter
from deft_engine.stages import ImportSpec
from tests.orchestration_world import job, run

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 120.0
QUICK = {
    "DEFT_LEASE_SECONDS": "4",
    "DEFT_HEARTBEAT_SECONDS": "0.5",
    "DEFT_RECONCILE_SECONDS": "0.5",
    "DEFT_REDISPATCH_SECONDS": "1",
    "DEFT_STOP_GRACE_SECONDS": "5",
}


class Uploads:
    """Resolves a dataset's name to the upload of that digest, and models to built-in ones."""

    def dataset(self, name: str, pointer: str) -> DatasetRef:
        return DatasetRef(External(f"upload:{name}", name), ImportSpec())

    def model(self, name: str, revision: str | None, pointer: str) -> Source:
        return External(f"builtin:{name}", f"builtin:{name}@1")


def upload(folder: Path, rows: int = 48) -> str:
    """Put pairs into the store; returns the upload's digest."""
    path = folder / "pairs.jsonl"
    with path.open("w") as file:
        for number in range(rows):
            row = {
                "prompt": f"What is {number} and {number}?",
                "chosen": f"It is {2 * number}, since {number} doubled is {2 * number}.",
                "rejected": f"No idea about {number}.",
            }
            file.write(json.dumps(row) + "\n")
    return get_store().put(path)


def training_job(digest: str, *, steps: int, seed: int = 1, checkpoint_every: int = 5) -> dict[str, Any]:
    """SFT of the tiny model on all samples."""
    return {
        "kind": "align",
        "dataset": digest,
        "model": {"base": "tiny"},
        "method": {"name": "sft"},
        "training": {
            "max_steps": steps,
            "epochs": 1000,
            "batch_size": 2,
            "learning_rate": 1e-4,
            "max_length": 64,
            "checkpoint_every": checkpoint_every,
            "seed": seed,
        },
    }


def submit(spec: dict[str, Any], *, reuse: bool = True) -> str:
    """Submit to the service's queue; returns the job's id."""
    parsed = job_spec_adapter.validate_python(spec)
    with transaction() as session:
        plan = plan_job(parsed, Uploads())
        return submit_job(session, parsed, plan, reuse=reuse, created_by=None, dataset_ids=[]).id


class Worker:
    """``celery -A workers.celery_app worker`` for both queues."""

    def __init__(self, log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "celery", "-A", "workers.celery_app", "worker",
                    "-P", "threads", "-Q", "cpu,gpu", "-c", "2", "--loglevel", "WARNING",
                ],
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        self.send(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def worker(log: Path) -> Iterator[Worker]:
    """A worker that is killed at the end, if it has not been stopped."""
    started = Worker(log)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.kill()


def until(condition: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """What ``condition`` returns once that is true; asked ten times a second."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {patience:.0f} s in vain"
        time.sleep(0.1)
    return found


def finished(job_id: str) -> str:
    """The job's terminal status, once it has one."""
    until(lambda: job(job_id).status in TERMINAL_JOBS)
    return job(job_id).status.value


def trained_step(job_id: str, step: int) -> bool:
    """Whether the job's training has reported a step."""
    progress = run(job_id, "train").progress
    return progress is not None and progress["step"] >= step


def losses(job_id: str) -> list[tuple[int, float]]:
    """The series ``loss`` of the job's training."""
    with transaction() as session:
        points = session.scalars(
            select(Metric)
            .where(Metric.stage_run_id == run(job_id, "train").id, Metric.name == "loss")
            .order_by(Metric.step)
        )
        return [(point.step, point.value) for point in points]


def weights(job_id: str) -> dict[str, str]:
    """The files of the job's model by digest, without the card."""
    with transaction() as session:
        artifacts = session.scalars(select(Artifact).where(Artifact.stage_run_id == run(job_id, "train").id))
        return {file.name: file.sha256 for file in artifacts if file.name.endswith(".safetensors")}


def descendants_of_workers() -> list[psutil.Process]:
    """Every engine and supervisor that works in this test's home."""
    return [process for process, _ in _working_in(str(get_settings().home))]


def engine_of(run_id: str) -> psutil.Process:
    """The engine of a stage run (its supervisor's command line names the folder too)."""
    return next(process for process, command in _working_in(run_id) if "deft_engine" in command)


def _working_in(folder: str) -> list[tuple[psutil.Process, list[str]]]:
    """Processes whose command line names a folder, with their command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if folder in " ".join(command) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append((process, command))
    return found
