"""Keyset pages: stable under inserts, and as fast on the last page as on the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.sql.base import ExecutableOption

from app.db.models import ApiKey, Dataset, Experiment, Job, Study
from app.errors import FieldError, invalid_request

Row = TypeVar("Row", ApiKey, Dataset, Experiment, Job, Study)


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
            fault = FieldError(pointer="after", code="unknown_cursor", detail="names no entry of this list")
            raise invalid_request([fault])
        query = query.where(sa.tuple_(table.created_at, table.id) < (last.created_at, last.id))
    rows = session.scalars(query.order_by(table.created_at.desc(), table.id.desc()).limit(limit + 1)).all()
    return list(rows[:limit]), len(rows) > limit
