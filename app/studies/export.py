"""Every vote and skip of a study as a table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from sqlalchemy.orm import Session

from app.db.models import Annotator, Assignment, ItemKind, Purpose, Skip, StudyItem, Vote
from app.spreadsheets import csv_text
from app.studies.raters import winner_of
from app.studies.results import standing, systems_of

_HEADER = (
    "sample_id", "subset", "purpose", "counted", "system_a", "system_b", "rater_id", "rater", "choice",
    "winner", "a_side", "late", "comment", "harmful", "seconds", "skip_reason", "dealt_at", "voted_at",
    "prompt", "response_a", "response_b",
)  # fmt: skip


def export_csv(session: Session, study_id: str) -> str:
    """Every standing vote with its pair, a row each, then every standing skip, whose ``choice`` is "skip".

    ``purpose`` tells repeats, gold (whose a is the better answer) and the tutorial; ``counted`` whether the
    vote is in the results. No cell can start a formula in a spreadsheet.
    """
    systems = systems_of(session, study_id)
    votes = (
        (
            item.sample_id, item.subset, assignment.purpose.value, _yes(_counts(assignment, annotator)),
            *_named_systems(item, systems), annotator.id, annotator.name, vote.choice.value,
            winner_of(vote.choice, assignment.a_is_left), _side_of_a(assignment), _yes(vote.late),
            vote.comment or "", _yes(vote.harmful), vote.seconds, "",
            assignment.created_at.isoformat(), vote.created_at.isoformat(), *_texts(item),
        )
        for vote, assignment, item, annotator in session.execute(standing(Vote, study_id))
    )  # fmt: skip
    skips = (
        (
            item.sample_id, item.subset, assignment.purpose.value, "no", *_named_systems(item, systems),
            annotator.id, annotator.name, "skip", "", _side_of_a(assignment), "", "", _yes(skip.harmful),
            None, skip.reason, assignment.created_at.isoformat(), skip.created_at.isoformat(), *_texts(item),
        )
        for skip, assignment, item, annotator in session.execute(standing(Skip, study_id))
    )  # fmt: skip
    return csv_text(_HEADER, chain(votes, skips))


def _counts(assignment: Assignment, annotator: Annotator) -> bool:
    return assignment.purpose is Purpose.PAIR and annotator.excluded_at is None


def _named_systems(item: StudyItem, systems: Sequence[str]) -> tuple[str, str]:
    if item.kind is not ItemKind.PAIR:
        return "", ""
    return systems[item.system_a], systems[item.system_b]


def _texts(item: StudyItem) -> tuple[str, ...]:
    prompt = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in item.prompt)
    return prompt, item.response_a, item.response_b


def _side_of_a(assignment: Assignment) -> str:
    return "left" if assignment.a_is_left else "right"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
