"""What endpoints ask for: the transaction, the caller by role, the page of a list, and declared problems."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, Query
from sqlalchemy.orm import Session

from app.auth import Principal, require
from app.db.models import Role
from app.db.session import transaction
from app.errors import PROBLEM_MEDIA_TYPE


def _open_transaction() -> Iterator[Session]:
    with transaction() as session:
        yield session


Transaction = Annotated[Session, Depends(_open_transaction, scope="function")]
"""The request's one transaction, committed before the answer is sent."""

Viewer = Annotated[Principal, Depends(require(Role.VIEWER))]
Researcher = Annotated[Principal, Depends(require(Role.RESEARCHER))]
Admin = Annotated[Principal, Depends(require(Role.ADMIN))]

Limit = Annotated[int, Query(ge=1, le=100, description="Entries of a page.")]
LimitOrAll = Annotated[int | None, Query(ge=1, le=100, description="Entries of a page; none: all.")]
After = Annotated[
    str | None,
    Query(max_length=200, pattern=r"^[^\x00]*$", description="The last entry of the page before: its id."),
]

_ALWAYS = (400, 401, 403, 404, 413, 422, 500, 503, 507)
_MEANING = {
    400: "The request is malformed",
    401: "No usable key",
    403: "The key's role does not allow it",
    404: "There is no such thing",
    409: "The state of things does not allow it",
    413: "The body is too large",
    416: "The range lies outside the file",
    422: "The request is not valid; `errors` names the places",
    500: "A defect of the service",
    503: "The database or the broker does not answer",
    507: "The server's disk is full",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of an address for the OpenAPI: those that any may give, and these."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {"description": _MEANING[status], "content": {PROBLEM_MEDIA_TYPE: schema}}
        for status in sorted({*_ALWAYS, *statuses})
    }
