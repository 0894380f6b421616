"""What a study has found so far: progress, outcomes, and every vote as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from app.db.models import (
    Annotator,
    Assignment,
    ItemKind,
    Purpose,
    Skip,
    Study,
    StudyItem,
    StudyPlace,
    StudySystem,
    Vote,
)
from app.studies.agreement import Agreement, agreement
from app.studies.design import pairs_of
from app.studies.exclusion import Rules
from app.studies.judges import JudgeFigures, judge_figures
from app.studies.ranking import strengths
from app.studies.raters import RaterFigures, rater_figures, winner_of
from app.studies.statistics import ASPECTS, Judgment, Outcome, by_aspect, by_subset

AnswerT = TypeVar("AnswerT", Vote, Skip)
"""What a rater answers to a pair."""

_COUNTED = (Assignment.purpose == Purpose.PAIR, Annotator.excluded_at.is_(None))
NOT_YET = Agreement(0, None, None, None, "the study's results are read after unblinding")


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
class Figures:
    """Outcomes of system a against system b; where there are more than two systems, see ``pairs``."""

    subsets: dict[str, Outcome] | None
    harmless: Outcome | None
    helpful: Outcome | None
    total: Outcome | None
    pairs: list[PairResults]
    strengths: dict[str, list[SystemStrength]]  # by aspect, the strongest first; empty for two systems
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class AfterExclusion(Figures):
    """The same figures without the raters whom the study's rules exclude."""

    excluded_raters: list[str]
    excluded_votes: int


@dataclass(frozen=True, slots=True)
class StudyResults(Figures):
    """All figures; ``after_exclusion`` is null where the study has no rules."""

    raters: list[RaterFigures]
    exclusions: Exclusions
    after_exclusion: AfterExclusion | None
    judges: list[JudgeFigures]


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


def results(session: Session, study: Study) -> StudyResults:
    """All figures over the standing votes on pairs, without those of removed raters.

    While they are hidden, those of the raters and of what does not count alone.
    """
    rules = Rules(**study.exclusion)
    raters = rater_figures(session, study.id, rules)
    if hidden(study):
        return StudyResults(
            None, None, None, None, [], {}, NOT_YET, raters, exclusions(session, study.id), None, []
        )
    judgments = counted_judgments(session, study.id)
    sizes, systems = subset_sizes(session, study.id), systems_of(session, study.id)
    after = None
    if rules.any:
        excluded = [rater.id for rater in raters if rater.excluded_by]
        kept = [vote for vote in judgments if vote.rater not in excluded]
        after = AfterExclusion(
            **_figures(kept, sizes, systems),
            excluded_raters=excluded,
            excluded_votes=len(judgments) - len(kept),
        )
    return StudyResults(
        **_figures(judgments, sizes, systems),
        raters=raters,
        exclusions=exclusions(session, study.id),
        after_exclusion=after,
        judges=judge_figures(session, study.id, judgments, systems=len(systems)),
    )


def hidden(study: Study) -> bool:
    """Whether nothing that tells who wins may be read yet."""
    return study.results == "after_unblinding" and study.unblinded_at is None


def counted_judgments(session: Session, study_id: str) -> list[Judgment]:
    """The standing votes on pairs of the raters who were not removed."""
    rows = session.execute(
        select(
            StudyItem.id,
            StudyItem.subset,
            Annotator.id,
            Vote.choice,
            Assignment.a_is_left,
            StudyItem.sample_id,
            StudyItem.system_a,
            StudyItem.system_b,
            func.char_length(StudyItem.response_a) - func.char_length(StudyItem.response_b),
        )
        .join(Assignment, Assignment.item_id == StudyItem.id)
        .join(Annotator, Annotator.id == Assignment.annotator_id)
        .join(Vote, Vote.assignment_id == Assignment.id)
        .where(StudyItem.study_id == study_id, Vote.undone_at.is_(None), *_COUNTED)
    )
    return [
        Judgment(
            item=item,
            subset=subset,
            rater=rater,
            side=choice.value,
            winner=winner_of(choice, a_is_left),
            prompt=prompt,
            systems=(system_a, system_b),
            longer=longer,
        )
        for item, subset, rater, choice, a_is_left, prompt, system_a, system_b, longer in rows
    ]


def _figures(judgments: Sequence[Judgment], sizes: Iterable[str], systems: Sequence[str]) -> dict[str, Any]:
    """The fields of :class:`Figures`."""
    pairs = [_pair_results(judgments, sizes, systems, pair) for pair in pairs_of(systems)]
    alone = pairs[0] if len(pairs) == 1 else None
    return {
        "subsets": alone.subsets if alone else None,
        "harmless": alone.harmless if alone else None,
        "helpful": alone.helpful if alone else None,
        "total": alone.total if alone else None,
        "pairs": pairs,
        "strengths": {} if alone else _strengths(judgments, systems),
        "agreement": agreement(judgments),
    }


def exclusions(session: Session, study_id: str) -> Exclusions:
    """What does not count in a study's figures."""
    dealt = (
        select(func.count())
        .select_from(Assignment)
        .join(Annotator, Annotator.id == Assignment.annotator_id)
        .where(Annotator.study_id == study_id)
    )
    voted = dealt.join(Vote, Vote.assignment_id == Assignment.id)
    counted = session.scalar(voted.where(*_COUNTED, Vote.undone_at.is_(None)))
    standing_skip = (Skip.assignment_id == Assignment.id) & Skip.undone_at.is_(None)
    skipped = session.scalar(dealt.join(Skip, standing_skip).where(*_COUNTED)) or 0
    removed = select(func.count()).select_from(Annotator).where(Annotator.study_id == study_id)
    excluded = Annotator.excluded_at.is_not(None)
    return Exclusions(
        undone=session.scalar(voted.where(*_COUNTED, Vote.undone_at.is_not(None))) or 0,
        unvoted=(session.scalar(dealt.where(*_COUNTED)) or 0) - (counted or 0) - skipped,
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


def standing(answer: type[AnswerT], study_id: str) -> Select[AnswerT, Assignment, StudyItem, Annotator]:
    """The votes or skips of a study that were not undone, with what they are on and whose they are."""
    return (
        select(answer, Assignment, StudyItem, Annotator)
        .join(Assignment, Assignment.id == answer.assignment_id)
        .join(StudyItem, StudyItem.id == Assignment.item_id)
        .join(Annotator, Annotator.id == Assignment.annotator_id)
        .where(StudyItem.study_id == study_id, answer.undone_at.is_(None))
        .order_by(StudyItem.position, Annotator.created_at, Annotator.id)
    )
