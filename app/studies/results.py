"""What a study has found so far: progress, outcomes, and every vote as a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session, defer

from app.db.models import Annotator, ApiKey, Assignment, Choice, Skip, Study, StudyItem, Vote
from app.spreadsheets import csv_text
from app.studies.assignments import items_of
from app.studies.statistics import (
    Agreement,
    Judgment,
    Outcome,
    Rate,
    Winner,
    agreement,
    by_aspect,
    by_subset,
    rate,
)

VoteRow = Row[Vote, Assignment, StudyItem, Annotator]

_TEXTS = (StudyItem.prompt, StudyItem.response_a, StudyItem.response_b)


@dataclass(frozen=True, slots=True)
class AnnotatorProgress:
    """A rater and how far they are."""

    id: str
    name: str
    subsets: list[str]
    key_id: str
    revoked: bool
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class RaterFigures:
    """A rater's votes, to see who votes for one side or late."""

    id: str
    name: str
    votes: int
    late: int
    left: Rate


@dataclass(frozen=True, slots=True)
class Exclusions:
    """What is not in the figures. Late votes are in them."""

    undone: int  # votes that were taken back
    unvoted: int  # pairs dealt that were neither voted on nor skipped
    skipped: int  # pairs that their rater would not judge


@dataclass(frozen=True, slots=True)
class StudyResults:
    """Outcomes are those of system a against system b."""

    subsets: dict[str, Outcome]
    harmless: Outcome
    helpful: Outcome
    total: Outcome
    agreement: Agreement
    raters: list[RaterFigures]
    exclusions: Exclusions


def subset_sizes(session: Session, study_id: str) -> dict[str, int]:
    """Pairs of each subset of a study."""
    rows = session.execute(
        select(StudyItem.subset, func.count())
        .where(StudyItem.study_id == study_id)
        .group_by(StudyItem.subset)
        .order_by(StudyItem.subset)
    )
    return dict(rows.all())


def study_warnings(session: Session, study: Study) -> list[str]:
    """What a reader of the study must know about its sample."""
    warnings: list[str] = []
    short = [
        f"{subset} ({size})"
        for subset, size in subset_sizes(session, study.id).items()
        if size < study.per_subset
    ]
    if short:
        warnings.append(
            f"fewer prompts than per_subset = {study.per_subset} were answered by both jobs, "
            f"and all of them are used, in: {', '.join(short)}"
        )
    equal = session.scalar(
        select(func.count())
        .select_from(StudyItem)
        .where(StudyItem.study_id == study.id, StudyItem.response_a == StudyItem.response_b)
    )
    if equal:
        warnings.append(
            f"in {equal} pairs both responses are the same text; a tie is the only right vote there"
        )
    return warnings


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
            done=done.get(annotator.id, 0),
            total=session.scalar(
                select(func.count()).select_from(StudyItem).where(*items_of(annotator, study))
            )
            or 0,
        )
        for annotator, revoked_at in rows
    ]


def results(session: Session, study_id: str) -> StudyResults:
    """All figures over the standing votes."""
    without_texts = _standing_votes(study_id).options(*(defer(column) for column in _TEXTS))
    rows = session.execute(without_texts).all()
    judgments = [_judgment(row) for row in rows]
    undone = session.scalar(
        select(func.count())
        .select_from(Vote)
        .join(Assignment, Assignment.id == Vote.assignment_id)
        .join(StudyItem, StudyItem.id == Assignment.item_id)
        .where(StudyItem.study_id == study_id, Vote.undone_at.is_not(None))
    )
    dealt = session.scalar(
        select(func.count())
        .select_from(Assignment)
        .join(StudyItem, StudyItem.id == Assignment.item_id)
        .where(StudyItem.study_id == study_id)
    )
    skipped = session.scalar(_standing_skips(study_id).order_by(None).with_only_columns(func.count())) or 0
    return StudyResults(
        subsets=by_subset(judgments, subset_sizes(session, study_id)),
        **by_aspect(judgments),
        agreement=agreement(judgments),
        raters=_rater_figures(rows),
        exclusions=Exclusions(
            undone=undone or 0, unvoted=(dealt or 0) - len(rows) - skipped, skipped=skipped
        ),
    )


def export_csv(session: Session, study_id: str) -> str:
    """Every standing vote with its pair, a row each, then every standing skip, whose ``choice`` is "skip".

    No cell can start a formula in a spreadsheet.
    """
    header = (
        "sample_id", "subset", "rater_id", "rater", "choice", "winner", "a_side", "late", "comment",
        "harmful", "seconds", "skip_reason", "dealt_at", "voted_at", "prompt", "response_a", "response_b",
    )  # fmt: skip
    votes = (
        (
            *_who(item, annotator), vote.choice.value, _winner(vote.choice, assignment.a_is_left),
            _side_of_a(assignment), _yes(vote.late), vote.comment or "", _yes(vote.harmful), vote.seconds, "",
            assignment.created_at.isoformat(), vote.created_at.isoformat(), *_texts(item),
        )
        for vote, assignment, item, annotator in session.execute(_standing_votes(study_id))
    )  # fmt: skip
    skips = (
        (
            *_who(item, annotator), "skip", "", _side_of_a(assignment), "", "", _yes(skip.harmful), None,
            skip.reason, assignment.created_at.isoformat(), skip.created_at.isoformat(), *_texts(item),
        )
        for skip, assignment, item, annotator in session.execute(_standing_skips(study_id))
    )  # fmt: skip
    return csv_text(header, chain(votes, skips))


def _who(item: StudyItem, annotator: Annotator) -> tuple[str, ...]:
    return item.sample_id, item.subset, annotator.id, annotator.name


def _texts(item: StudyItem) -> tuple[str, ...]:
    prompt = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in item.prompt)
    return prompt, item.response_a, item.response_b


def _side_of_a(assignment: Assignment) -> str:
    return "left" if assignment.a_is_left else "right"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _standing_skips(study_id: str) -> Select[Skip, Assignment, StudyItem, Annotator]:
    return (
        select(Skip, Assignment, StudyItem, Annotator)
        .join(Assignment, Assignment.id == Skip.assignment_id)
        .join(StudyItem, StudyItem.id == Assignment.item_id)
        .join(Annotator, Annotator.id == Assignment.annotator_id)
        .where(StudyItem.study_id == study_id, Skip.undone_at.is_(None))
        .order_by(StudyItem.position, Annotator.created_at, Annotator.id)
    )


def _standing_votes(study_id: str) -> Select[Vote, Assignment, StudyItem, Annotator]:
    return (
        select(Vote, Assignment, StudyItem, Annotator)
        .join(Assignment, Assignment.id == Vote.assignment_id)
        .join(StudyItem, StudyItem.id == Assignment.item_id)
        .join(Annotator, Annotator.id == Assignment.annotator_id)
        .where(StudyItem.study_id == study_id, Vote.undone_at.is_(None))
        .order_by(StudyItem.position, Annotator.created_at, Annotator.id)
    )


def _judgment(row: VoteRow) -> Judgment:
    vote, assignment, item, annotator = row
    return Judgment(
        item=item.id,
        subset=item.subset,
        rater=annotator.id,
        side=vote.choice.value,
        winner=_winner(vote.choice, assignment.a_is_left),
    )


def _winner(choice: Choice, a_is_left: bool) -> Winner:
    if choice is Choice.TIE:
        return "tie"
    return "a" if (choice is Choice.LEFT) == a_is_left else "b"


def _rater_figures(rows: Iterable[VoteRow]) -> list[RaterFigures]:
    votes: dict[str, list[Vote]] = defaultdict(list)
    names: dict[str, str] = {}
    for vote, _, _, annotator in rows:
        names[annotator.id] = annotator.name
        votes[annotator.id].append(vote)
    return [
        RaterFigures(
            id=rater,
            name=names[rater],
            votes=len(cast),
            late=sum(vote.late for vote in cast),
            left=rate(
                sum(vote.choice is Choice.LEFT for vote in cast),
                sum(vote.choice is not Choice.TIE for vote in cast),
            ),
        )
        for rater, cast in votes.items()
    ]
