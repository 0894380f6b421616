"""A job's files: listed, and downloaded whole or in ranges, with their SHA-256 as strong ETag."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import FileResponse, Response

from app.api.dependencies import After, Transaction, Viewer, problems
from app.api.lookup import JobId, job_or_404
from app.api.schemas import Answer, Page
from app.db.media_types import MEDIA_TYPES
from app.db.queries import NamedArtifact, artifacts_of_job
from app.errors import FieldError, Problem, invalid_request
from app.store import get_store

router = APIRouter(prefix="/jobs/{job_id}/artifacts", tags=["jobs"])

_POSITIONS = r"(\d{1,19}-\d{0,19}|-\d{1,19})"
_RANGE = re.compile(rf"bytes=\s*{_POSITIONS}(\s*,\s*{_POSITIONS})*\s*", re.ASCII)
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
"""Of a report: read in the browser, cut off from this origin."""
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILE: dict[str, Any] = dict.fromkeys(MEDIA_TYPES, _BINARY)


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
    limit: Annotated[int | None, Query(ge=1, le=100, description="Entries of a page; none: all.")] = None,
    after: After = None,
) -> Page[ArtifactView]:
    """All files of the job's stages, reused ones included, in the order of the plan."""
    named = artifacts_of_job(session, job_or_404(session, job_id))
    if after:
        named = named[_position(named, after) + 1 :]
    page = named[:limit]
    return Page(data=[_view(job_id, entry) for entry in page], has_more=len(page) < len(named))


@router.get(
    "/{name:path}",
    operation_id="download_artifact",
    response_class=FileResponse,
    responses={
        **problems(416),
        200: {"description": "The file", "content": _FILE},
        206: {"description": "Ranges of it", "content": _FILE | {"multipart/byteranges": _BINARY}},
        304: {"description": "If-None-Match names its ETag"},
    },
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
    etag = f'"{found.sha256}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if _matches(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=headers)
    if request.headers.get("if-range", etag) == etag:
        _check_range(request.headers.get("range"), found.size)
    filename = PurePosixPath(name).name
    shown = found.media_type == "text/html"  # the report: read in the browser, cut off from this origin
    return FileResponse(
        get_store().get(found.sha256),
        headers=headers | ({"Content-Security-Policy": REPORT_POLICY} if shown else {}),
        media_type=found.media_type,
        filename=filename,
        content_disposition_type="inline" if shown else "attachment",
    )


def _position(named: list[NamedArtifact], artifact_id: str) -> int:
    for position, entry in enumerate(named):
        if entry.artifact.id == artifact_id:
            return position
    fault = FieldError(pointer="after", code="unknown_cursor", detail="names no file of this job")
    raise invalid_request([fault])


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


def _matches(if_none_match: str, etag: str) -> bool:
    sent = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return etag in sent or sent == ["*"]


def _check_range(value: str | None, size: int) -> None:
    """Refuse what FileResponse would refuse in plain text.

    Raises:
        Problem: 400 for a malformed header, 416 for a range outside the file.
    """
    if value is None:
        return
    if not _RANGE.fullmatch(value):
        raise _bad_range(400, "the header Range is malformed; send for example Range: bytes=1000-", size)
    for part in value.partition("=")[2].split(","):
        first, _, last = part.strip().partition("-")
        if first and last and int(last) < int(first):
            raise _bad_range(400, f"the range {part.strip()} ends before it starts", size)
        if (int(first) if first else size - int(last)) >= size:
            raise _bad_range(416, f"the range {part.strip()} lies outside the file of {size} bytes", size)


def _bad_range(status: int, detail: str, size: int) -> Problem:
    headers = {"Content-Range": f"bytes */{size}"} if status == 416 else None
    return Problem(status, "bad_range", "The range cannot be sent", detail, headers=headers)
