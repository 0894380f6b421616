"""What a job has when its last stage succeeds: its result, and ``manifest.json`` in the store."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from sqlalchemy.orm import Session

from app.db.models import Artifact, Job, Json, StageRun
from app.ids import new_id
from app.store import get_store

MANIFEST = "manifest.json"


def fill_result(session: Session, job: Job) -> None:
    """Set ``job.result`` and store the job's manifest.

    Raises:
        OSError: the store cannot take the manifest (the disk is full).
    """
    job.result = job_result([place.stage_run for place in job.stages], job.warnings)
    content = json.dumps(_manifest(job), indent=1, ensure_ascii=False).encode()
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / MANIFEST
        path.write_bytes(content)
        digest = get_store().put(path)
    session.add(
        Artifact(
            id=new_id("art"),
            job_id=job.id,
            name=MANIFEST,
            sha256=digest,
            size=len(content),
            media_type="application/json",
        )
    )


def job_result(runs: list[StageRun], warnings: list[str]) -> Json:
    """Each stage's result by its name (the second of a name is ``name_2``), all warnings, and the table."""
    result: Json = {}
    said = list(warnings)
    for run in runs:
        found = dict(run.result or {})
        said += [warning for warning in found.get("warnings", ()) if warning not in said]
        result[_free_name(run.stage, result)] = found
        if run.stage == "evaluate":
            result["results"] = {"subsets": found.get("subsets"), "total": found.get("total")}
    return {**result, "warnings": said}


def _free_name(stage: str, taken: Json) -> str:
    name, number = stage, 1
    while name in taken:
        number += 1
        name = f"{stage}_{number}"
    return name


def _manifest(job: Job) -> Json:
    return {
        "job": job.id,
        "kind": job.kind,
        "name": job.name,
        "spec": job.spec,
        "stages": [
            {"run": place.stage_run_id, "reused": place.reused, **(place.stage_run.manifest or {})}
            for place in job.stages
        ],
        "created_at": job.created_at.isoformat(),
    }
