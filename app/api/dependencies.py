"""What endpoints ask for: the transaction, the caller by role, the page of a list, and declared problems."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Query
from sqlalchemy.orm import Session

from app.auth import Principal, Shown, recognise, refuse_below, shown_by_caller
from app.db.models import Role
from app.db.session import transaction
from app.errors import PROBLEM_MEDIA_TYPE


class _Entered(NamedTuple):
    session: Session
    principal: Principal


_Shown = Annotated[Shown, Depends(shown_by_caller)]


def _enter(shown: _Shown) -> Iterator[_Entered]:
    with transaction() as session:
        yield _Entered(session, recognise(session, shown))


def _open_transaction() -> Iterator[Session]:
    with transaction() as session:
        yield session


_Inside = Annotated[_Entered, Depends(_enter, scope="function")]


async def _session(entered: _Inside) -> Session:
    return entered.session


def _require(lowest: Role) -> Callable[[_Entered], Awaitable[Principal]]:
    async def check(entered: _Inside) -> Principal:
        refuse_below(lowest, entered.principal)
        return entered.principal

    return check


def _require_beforehand(lowest: Role) -> Callable[[Shown], Principal]:
    def check(shown: _Shown) -> Principal:
        with transaction() as own:
            principal = recognise(own, shown)
        refuse_below(lowest, principal)
        return principal

    return check


Transaction = Annotated[Session, Depends(_session)]
"""The request's one transaction, in which its caller was looked up; committed before the answer is sent."""

VisitorTransaction = Annotated[Session, Depends(_open_transaction, scope="function")]
"""The one of a page, which looks its visitor's cookie up itself."""

Viewer = Annotated[Principal, Depends(_require(Role.VIEWER))]
Researcher = Annotated[Principal, Depends(_require(Role.RESEARCHER))]
Admin = Annotated[Principal, Depends(_require(Role.ADMIN))]

ViewerBeforehand = Annotated[Principal, Depends(_require_beforehand(Role.VIEWER))]
"""Looked up in a transaction that has ended: where answering takes long, no connection is held."""
ResearcherBeforehand = Annotated[Principal, Depends(_require_beforehand(Role.RESEARCHER))]

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
