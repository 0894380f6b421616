"""How far the raters of a study are."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.models import Annotator, ApiKey, Assignment, Study, Vote
from app.studies.dealing import workload


@dataclass(frozen=True, slots=True)
class AnnotatorProgress:
    """A rater and how far they are."""

    id: str
    name: str
    subsets: list[str]
    key_id: str
    revoked: bool
    excluded: bool  # removed, and no vote of theirs counts
    done: int
    total: int


def progress(session: Session, study: Study) -> list[AnnotatorProgress]:
    """The study's raters in the order in which they were invited."""
    done = dict(
        session.execute(
            select(Assignment.annotator_id, func.count())
            .join(Vote, Vote.assignment_id == Assignment.id)
            .join(Annotator, Annotator.id == Assignment.annotator_id)
            .where(Annotator.study_id == study.id, Vote.undone_at.is_(None))
            .group_by(Assignment.annotator_id)
        ).all()
    )
    rows = session.execute(
        select(Annotator, ApiKey.revoked_at)
        .join(ApiKey, ApiKey.id == Annotator.key_id)
        .where(Annotator.study_id == study.id)
        .order_by(Annotator.created_at, Annotator.id)
    ).all()
    return [
        AnnotatorProgress(
            id=annotator.id,
            name=annotator.name,
            subsets=annotator.subsets,
            key_id=annotator.key_id,
            revoked=revoked_at is not None,
            excluded=annotator.excluded_at is not None,
            done=done.get(annotator.id, 0),
            total=(
                workload(session, annotator, study).total if revoked_at is None else done.get(annotator.id, 0)
            ),
        )
        for annotator, revoked_at in rows
    ]
