"""Keyset pages: stable under inserts, and as fast on the last page as on the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.sql.base import ExecutableOption

from app.db.models import ApiKey, Dataset, Experiment, Job, Study
from app.errors import FieldError, Problem, invalid_request

Row = TypeVar("Row", ApiKey, Dataset, Experiment, Job, Study)
Entry = TypeVar("Entry")


def newest_first(
    session: Session,
    table: type[Row],
    *where: sa.ColumnElement[bool],
    limit: int,
    after: str | None,
    options: Sequence[ExecutableOption] = (),
) -> tuple[list[Row], bool]:
    """A page of a table, ordered by (created_at, id) descending, and whether more follow.

    Args:
        after: id of the entry before the page; none and an empty one are the list's start.

    Raises:
        Problem: 422 if ``after`` names nothing.
    """
    query = sa.select(table).where(*where).options(*options)
    if after:
        last = session.get(table, after)
        if last is None:
            raise _unknown_cursor()
        query = query.where(sa.tuple_(table.created_at, table.id) < (last.created_at, last.id))
    rows = session.scalars(query.order_by(table.created_at.desc(), table.id.desc()).limit(limit + 1)).all()
    return list(rows[:limit]), len(rows) > limit


def page_of(
    entries: Sequence[Entry], id_of: Callable[[Entry], str], *, limit: int | None, after: str | None
) -> tuple[Sequence[Entry], bool]:
    """A page of a short list that is whole in memory, and whether more follow; without ``limit`` all.

    Raises:
        Problem: 422 if ``after`` names nothing.
    """
    if after:
        ids = [id_of(entry) for entry in entries]
        if after not in ids:
            raise _unknown_cursor()
        entries = entries[ids.index(after) + 1 :]
    page = entries[:limit]
    return page, len(page) < len(entries)


def _unknown_cursor() -> Problem:
    fault = FieldError(pointer="after", code="unknown_cursor", detail="names no entry of this list")
    return invalid_request([fault])
