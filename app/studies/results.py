"""What a study has found so far: progress, outcomes, and every vote as a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session, defer

from app.db.models import (
    Annotator,
    ApiKey,
    Assignment,
    Choice,
    ItemKind,
    Purpose,
    Skip,
    Study,
    StudyItem,
    StudyPlace,
    StudySystem,
    Vote,
)
from app.studies.dealing import workload
from app.studies.design import pairs_of
from app.studies.ranking import strengths
from app.studies.statistics import (
    ASPECTS,
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

_COUNTED = (Assignment.purpose == Purpose.PAIR, Annotator.excluded_at.is_(None))
_TEXTS = (StudyItem.prompt, StudyItem.response_a, StudyItem.response_b)


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
    removed_raters: int
    removed_votes: int  # of raters who were removed with their votes


@dataclass(frozen=True, slots=True)
class PairResults:
    """Outcomes of system ``a`` against system ``b`` of the study."""

    a: str
    b: str
    subsets: dict[str, Outcome]
    harmless: Outcome
    helpful: Outcome
    total: Outcome


@dataclass(frozen=True, slots=True)
class SystemStrength:
    """A system's Bradley-Terry strength: log odds of a win against the average of the study's systems."""

    system: str
    strength: float
    interval: tuple[float, float] | None
    votes: int


@dataclass(frozen=True, slots=True)
class StudyResults:
    """Outcomes of system a against system b; where there are more than two systems, see ``pairs``."""

    subsets: dict[str, Outcome] | None
    harmless: Outcome | None
    helpful: Outcome | None
    total: Outcome | None
    pairs: list[PairResults]
    strengths: dict[str, list[SystemStrength]]  # by aspect, the strongest first; empty for two systems
    agreement: Agreement
    raters: list[RaterFigures]
    exclusions: Exclusions


def systems_of(session: Session, study_id: str) -> list[str]:
    """The jobs that a study compares, in its order."""
    return list(
        session.scalars(
            select(StudySystem.job_id).where(StudySystem.study_id == study_id).order_by(StudySystem.position)
        )
    )


def the_two(systems: Sequence[str]) -> tuple[str | None, str | None]:
    """Systems a and b of a study of two; where there are more, none has that name."""
    return (systems[0], systems[1]) if len(systems) == 2 else (None, None)


def subset_sizes(session: Session, study_id: str) -> dict[str, int]:
    """Pairs of each subset of a study."""
    rows = session.execute(
        select(StudyPlace.subset, func.count())
        .where(StudyPlace.study_id == study_id)
        .group_by(StudyPlace.subset)
        .order_by(StudyPlace.subset)
    )
    return dict(rows.all())


def study_warnings(session: Session, study: Study) -> list[str]:
    """What a reader of the study must know about its sample."""
    warnings: list[str] = []
    short = [
        f"{subset} ({size // study.pairs_per_prompt})"
        for subset, size in subset_sizes(session, study.id).items()
        if size < study.per_subset * study.pairs_per_prompt
    ]
    if short:
        warnings.append(
            f"fewer prompts than per_subset = {study.per_subset} were answered by all jobs, "
            f"and all of them are used, in: {', '.join(short)}"
        )
    equal = session.scalar(
        select(func.count())
        .select_from(StudyItem)
        .where(
            StudyItem.study_id == study.id,
            StudyItem.kind == ItemKind.PAIR,
            StudyItem.response_a == StudyItem.response_b,
        )
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
            excluded=annotator.excluded_at is not None,
            done=done.get(annotator.id, 0),
            total=(
                workload(session, annotator, study).total if revoked_at is None else done.get(annotator.id, 0)
            ),
        )
        for annotator, revoked_at in rows
    ]


def results(session: Session, study_id: str) -> StudyResults:
    """All figures over the standing votes on pairs, without those of removed raters."""
    without_texts = standing_votes(study_id).options(*(defer(column) for column in _TEXTS))
    rows = session.execute(without_texts.where(*_COUNTED)).all()
    judgments = [_judgment(row) for row in rows]
    sizes = subset_sizes(session, study_id)
    systems = systems_of(session, study_id)
    pairs = [_pair_results(judgments, sizes, systems, pair) for pair in pairs_of(systems)]
    alone = pairs[0] if len(pairs) == 1 else None
    return StudyResults(
        subsets=alone.subsets if alone else None,
        harmless=alone.harmless if alone else None,
        helpful=alone.helpful if alone else None,
        total=alone.total if alone else None,
        pairs=pairs,
        strengths={} if alone else _strengths(judgments, systems),
        agreement=agreement(judgments),
        raters=_rater_figures(rows),
        exclusions=_exclusions(session, study_id, len(rows)),
    )


def _exclusions(session: Session, study_id: str, counted: int) -> Exclusions:
    dealt = (
        select(func.count())
        .select_from(Assignment)
        .join(Annotator, Annotator.id == Assignment.annotator_id)
        .where(Annotator.study_id == study_id)
    )
    voted = dealt.join(Vote, Vote.assignment_id == Assignment.id)
    standing_skip = (Skip.assignment_id == Assignment.id) & Skip.undone_at.is_(None)
    skipped = session.scalar(dealt.join(Skip, standing_skip).where(*_COUNTED)) or 0
    removed = select(func.count()).select_from(Annotator).where(Annotator.study_id == study_id)
    excluded = Annotator.excluded_at.is_not(None)
    return Exclusions(
        undone=session.scalar(voted.where(*_COUNTED, Vote.undone_at.is_not(None))) or 0,
        unvoted=(session.scalar(dealt.where(*_COUNTED)) or 0) - counted - skipped,
        skipped=skipped,
        removed_raters=session.scalar(removed.where(excluded)) or 0,
        removed_votes=session.scalar(
            voted.where(Assignment.purpose == Purpose.PAIR, excluded, Vote.undone_at.is_(None))
        )
        or 0,
    )


def _pair_results(
    judgments: Iterable[Judgment], sizes: Iterable[str], systems: Sequence[str], pair: tuple[int, int]
) -> PairResults:
    votes = [vote for vote in judgments if vote.systems == pair]
    return PairResults(
        a=systems[pair[0]], b=systems[pair[1]], subsets=by_subset(votes, sizes), **by_aspect(votes)
    )


def _strengths(judgments: Sequence[Judgment], systems: Sequence[str]) -> dict[str, list[SystemStrength]]:
    return {
        aspect: [
            SystemStrength(systems[one.system], one.strength, one.interval, one.votes)
            for one in strengths([vote for vote in judgments if belongs(vote)], len(systems))
        ]
        for aspect, belongs in ASPECTS.items()
    }


def standing_votes(study_id: str) -> Select[Vote, Assignment, StudyItem, Annotator]:
    """The votes of a study that were not undone, with what they are on and whose they are."""
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
        winner=winner_of(vote.choice, assignment.a_is_left),
        prompt=item.sample_id,
        systems=(item.system_a, item.system_b),
    )


def winner_of(choice: Choice, a_is_left: bool) -> Winner:
    """Which of a pair's systems a rater chose."""
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
