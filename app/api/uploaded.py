"""What addresses of uploads share: the form's description, and deleting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.db.graph import load_runs, settle
from app.db.models import Dataset
from app.db.queries import live_jobs_of_dataset, others_have_upload, upload_is_read
from app.errors import Problem
from app.store import get_store


def upload_body(fields: Mapping[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    """The OpenAPI's request body of an upload with these form fields."""
    form = {
        "type": "object",
        "required": ["file", *required],
        "properties": {"file": {"type": "string", "format": "binary"}, **fields},
    }
    return {
        "requestBody": {
            "required": True,
            "description": "A form with the part `file`, or the file's bytes as the body; plain or gzip.",
            "content": {
                "multipart/form-data": {"schema": form},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    }


def delete_upload(session: Session, upload: Dataset, what: str) -> None:
    """Delete an upload's row, and its bytes where nothing else has them. The graph is locked by the caller.

    Raises:
        Problem: 409 ``<what>_in_use`` while live jobs name it, ``<what>_processing`` while it is read.
    """
    if jobs := live_jobs_of_dataset(session, upload.id):
        raise Problem(
            409,
            f"{what}_in_use",
            f"The {what} {_is(what)} in use",
            f"live jobs use it: {', '.join(jobs)}; cancel them or wait until they end",
            extra={"jobs": list(jobs)},
        )
    shared = others_have_upload(session, upload)
    if not shared and upload_is_read(session, upload):
        raise Problem(
            409,
            f"{what}_processing",
            f"The {what} {_is(what)} being read",
            f"a worker reads the upload; delete the {what} when the status is ready or invalid",
        )
    session.delete(upload)
    session.flush()
    settle(session, load_runs(session, [upload.import_run_id]))  # nobody waits for its reading any more
    session.flush()
    if not shared and upload.hub is None:
        get_store().delete(upload.sha256)


def _is(what: str) -> str:
    return "are" if what.endswith("s") else "is"
