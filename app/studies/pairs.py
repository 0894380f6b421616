"""A study's pairs as a researcher reads them: with their systems, by number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import ItemKind, Study, StudyItem
from app.studies.results import systems_of


@dataclass(frozen=True, slots=True)
class NumberedPair:
    """A pair that raters judge; ``id`` is its number in the study, from 1."""

    id: int
    sample_id: str
    subset: str
    a: str
    b: str
    prompt: list[Any]
    response_a: str
    response_b: str


def numbered_pairs(
    session: Session, study: Study, *, after: int, limit: int, among: Iterable[str] | None = None
) -> tuple[list[tuple[str, NumberedPair]], bool]:
    """The next pairs behind number ``after`` with their items' ids, and whether there are more.

    Args:
        among: Ids of items, of which alone pairs are wanted.
    """
    wanted = [StudyItem.study_id == study.id, StudyItem.kind == ItemKind.PAIR, StudyItem.position >= after]
    if among is not None:
        wanted.append(StudyItem.id.in_(among))
    ordered = select(StudyItem).where(*wanted).order_by(StudyItem.position)
    items = session.scalars(ordered.limit(limit + 1)).all()
    systems = systems_of(session, study.id)
    found = [
        (
            item.id,
            NumberedPair(
                id=item.position + 1,
                sample_id=item.sample_id,
                subset=item.subset,
                a=systems[item.system_a],
                b=systems[item.system_b],
                prompt=item.prompt,
                response_a=item.response_a,
                response_b=item.response_b,
            ),
        )
        for item in items[:limit]
    ]
    return found, len(items) > limit
