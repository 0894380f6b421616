"""A job's files: listed, and downloaded whole or in ranges, with their SHA-256 as strong ETag."""

from __future__ import annotations

from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Request
from starlette.responses import FileResponse, Response

from app.api.dependencies import After, LimitOrAll, Transaction, Viewer, problems
from app.api.downloads import file_answers, send_file
from app.api.lookup import JobId, job_or_404
from app.api.pages import page_of
from app.api.schemas import Answer, Page
from app.db.media_types import MEDIA_TYPES
from app.db.queries import NamedArtifact, artifacts_of_job
from app.errors import Problem
from app.store import get_store

router = APIRouter(prefix="/jobs/{job_id}/artifacts", tags=["jobs"])

REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
"""Of a report: read in the browser, cut off from this origin."""


class ArtifactView(Answer):
    """A file that a job made."""

    id: str
    object: Literal["artifact"] = "artifact"
    name: str
    stage: str | None
    """The stage that made it; null for the job's own manifest and report."""
    sha256: str
    size: int
    media_type: str
    created_at: datetime
    url: str


@router.get("", operation_id="list_artifacts", responses=problems())
def list_artifacts(
    job_id: JobId,
    session: Transaction,
    caller: Viewer,
    limit: LimitOrAll = None,
    after: After = None,
) -> Page[ArtifactView]:
    """All files of the job's stages, reused ones included, in the order of the plan."""
    named = artifacts_of_job(session, job_or_404(session, job_id))
    page, has_more = page_of(named, lambda entry: entry.artifact.id, limit=limit, after=after)
    return Page(data=[_view(job_id, entry) for entry in page], has_more=has_more)


@router.get(
    "/{name:path}",
    operation_id="download_artifact",
    response_class=FileResponse,
    responses=file_answers(*MEDIA_TYPES),
)
@router.head("/{name:path}", include_in_schema=False)
def download_artifact(
    job_id: JobId,
    name: Annotated[str, Path(examples=["model/config.json"])],
    request: Request,
    session: Transaction,
    caller: Viewer,
) -> Response:
    """One file. Takes Range, If-Range and If-None-Match."""
    named = artifacts_of_job(session, job_or_404(session, job_id))
    found = next((entry.artifact for entry in named if entry.name == name), None)
    if found is None:
        raise _no_such_artifact(name, named)
    shown = found.media_type == "text/html"  # the report: read in the browser, cut off from this origin
    file = FileResponse(
        get_store().get(found.sha256),
        headers={"Content-Security-Policy": REPORT_POLICY} if shown else None,
        media_type=found.media_type,
        filename=PurePosixPath(name).name,
        content_disposition_type="inline" if shown else "attachment",
    )
    return send_file(request, file, found.sha256, found.size)


def _view(job_id: str, entry: NamedArtifact) -> ArtifactView:
    artifact = entry.artifact
    return ArtifactView(
        id=artifact.id,
        name=entry.name,
        stage=entry.stage,
        sha256=artifact.sha256,
        size=artifact.size,
        media_type=artifact.media_type,
        created_at=artifact.created_at,
        url=f"/jobs/{job_id}/artifacts/{quote(entry.name)}",
    )


def _no_such_artifact(name: str, named: list[NamedArtifact]) -> Problem:
    inside = [entry.name for entry in named if entry.name.startswith(name.rstrip("/") + "/")]
    listed = inside or [entry.name for entry in named]
    found = f"{name!r} is a folder" if inside else f"there is no artifact {name!r}"
    has = f"files: {', '.join(listed[:20])}" if listed else "the job has made none yet"
    return Problem(404, "not_found", "Not found", f"{found}; {has}")
