"""A dataset made of a study's votes."""

from __future__ import annotations

import json

from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.api.study_results import readable_study
from app.errors import FieldError, Problem, invalid_request
from app.studies.preferences import Ties, preferences_jsonl
from deft_engine.base import Name, Spec
from deft_engine.faults import faults


class StudyFields(Spec):
    """The votes of a study as a dataset of the format ``pairwise``."""

    study: Name
    ties: Ties = "leave_out"
    """Pairs without a preference: left out, or kept as two rows, one in each order."""
    name: Name | None = None
    """null: "votes of" and the study's name."""


def study_fields(body: bytes) -> StudyFields | None:
    """The fields of a request that names a study; None: it names something else.

    Raises:
        Problem: 422, it asks for what cannot be.
    """
    given = json.loads(body)
    if "study" not in given:
        return None
    try:
        return StudyFields.model_validate(given)
    except ValidationError as error:
        found = [FieldError(**fault._asdict()) for fault in faults(error.errors(), given)]
        raise invalid_request(found) from None


def votes_as_file(session: Session, asked: StudyFields) -> tuple[str, bytes]:
    """The dataset's name, and its rows.

    Raises:
        Problem: 404; 409 while the study's results are hidden, or when no vote prefers a response.
    """
    study = readable_study(session, asked.study)
    content = preferences_jsonl(session, study, asked.ties)
    if not content:
        raise Problem(
            409,
            "no_preferences",
            "The study has no preferences",
            f"no pair of {study.id} has a response that its raters prefer; wait for votes, or keep ties",
        )
    return asked.name or f"votes of {study.name}"[:200], content
