"""What a job has when its last stage succeeds: its result, ``manifest.json`` and ``report.html``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from sqlalchemy.orm import Session

from app.db.models import Artifact, Job, Json, StageRun
from app.db.queries import artifacts_of_job
from app.db.reward_model_quality import reward_model_warnings
from app.ids import new_id
from app.series import load_series
from app.store import get_store
from deft_engine.report import CURVES, REPORT, REPORTED, render_report
from deft_engine.report_charts import Points

MANIFEST = "manifest.json"


def fill_result(session: Session, job: Job) -> None:
    """Set ``job.result`` and store the job's manifest and report.

    Raises:
        OSError: the store cannot take a file (the disk is full), or has lost one.
    """
    runs = [place.stage_run for place in job.stages]
    known = reward_model_warnings(session, [run.id for run in runs])
    job.result = job_result(runs, [*job.warnings, *(text for text in known if text not in job.warnings)])
    manifest = _manifest(job)
    content = json.dumps(manifest, indent=1, ensure_ascii=False)
    _store_text(session, job, MANIFEST, "application/json", content)
    read = {
        entry.name: get_store().get(entry.artifact.sha256)
        for entry in artifacts_of_job(session, job)
        if entry.name in REPORTED
    }
    _store_text(session, job, REPORT, "text/html", render_report(manifest, _curves(session, job), read))


def _store_text(session: Session, job: Job, name: str, media_type: str, text: str) -> None:
    content = text.encode(errors="backslashreplace")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / name
        path.write_bytes(content)
        digest = get_store().put(path)
    session.add(
        Artifact(
            id=new_id("art"),
            job_id=job.id,
            name=name,
            sha256=digest,
            size=len(content),
            media_type=media_type,
        )
    )


def _curves(session: Session, job: Job) -> dict[str, Points]:
    """What the job's training reported."""
    trained = [p.stage_run for p in job.stages if p.stage_run.stage in ("train", "train_reward")]
    series = {name: load_series(session, run.id, name, finished=True) for run in trained for name in CURVES}
    return {
        name: list(zip(found.steps.tolist(), found.values.tolist(), strict=True))
        for name, found in series.items()
    }


def job_result(runs: list[StageRun], warnings: list[str]) -> Json:
    """Each stage's result by its name (the second of a name is ``name_2``), all warnings, and the table."""
    result: Json = {}
    said = list(warnings)
    for run in runs:
        found = dict(run.result or {})
        said += [warning for warning in found.get("warnings", ()) if warning not in said]
        result[_free_name(run.stage, result)] = found
        if run.stage == "augment":
            result["dataset"] = found.get("dataset")
        if run.stage in ("evaluate", "reward_quality"):
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
        "warnings": (job.result or {}).get("warnings", job.warnings),
        "stages": [
            {
                "run": place.stage_run_id,
                "reused": place.reused,
                "stage": place.stage_run.stage,
                "result": place.stage_run.result,
                **(place.stage_run.manifest or {}),
            }
            for place in job.stages
        ],
        "created_at": job.created_at.isoformat(),
    }
