"""What a stage ``augment`` made is a dataset like any other: its file is the upload."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.db.graph import record_import
from app.db.models import Dataset, DatasetStatus, Job, JobStage, StageRun
from app.db.submit import submit_import
from app.ids import new_id
from deft_engine.plan import DatasetRef, External, plan_dataset
from deft_engine.stages import ImportSpec

_FORMAT = "ranked"


def keep_as_dataset(session: Session, run: StageRun, sha256: str, size: int) -> str:
    """Add the dataset that a run of ``augment`` made, named after its first job; returns its id.

    The file is in the store already. The graph is locked by the caller.
    """
    spec = ImportSpec(format=_FORMAT)
    imported = submit_import(session, plan_dataset(DatasetRef(External(f"upload:{sha256}", sha256), spec)))
    of_run = select(Job.name).join(JobStage).where(JobStage.stage_run_id == run.id)
    dataset = Dataset(
        id=new_id("ds"),
        name=session.scalar(of_run.order_by(Job.created_at, Job.id).limit(1)) or run.stage,
        status=DatasetStatus.PROCESSING,
        sha256=sha256,
        size=size,
        requested_format=_FORMAT,
        subset=None,
        import_run_id=imported.id,
    )
    record_import(dataset, imported)
    session.add(dataset)
    return dataset.id


def forget_dataset(session: Session, dataset_id: str) -> None:
    """No later job may join the run that made this dataset, which is deleted."""
    made = StageRun.result["dataset"].as_string() == dataset_id
    session.execute(update(StageRun).where(StageRun.stage == "augment", made).values(reusable=False))
