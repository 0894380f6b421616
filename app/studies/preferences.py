"""Votes as training data: what a study's raters prefer, as rows of the format ``pairwise`` (ADR 92)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import ItemKind, Study, StudyItem
from app.studies.exclusion import Rules
from app.studies.raters import rater_figures
from app.studies.results import counted_judgments, systems_of
from app.studies.statistics import POINTS, Winner

Ties = Literal["leave_out", "keep"]


def preferences_jsonl(session: Session, study: Study, ties: Ties) -> bytes:
    """The pairs that were voted on, in the study's order, a row each (:func:`preferences`)."""
    encoder = msgspec.json.Encoder()
    return encoder.encode_lines(list(preferences(session, study, ties)))


def preferences(session: Session, study: Study, ties: Ties) -> Iterator[dict[str, Any]]:
    """What most votes of a pair's raters say, without raters who were removed or break one of the rules.

    A score is a response's share of the votes, a tie being half a vote of each. A pair without a preference
    is left out, or kept as two rows, one in each order, which together pull a model neither way. Two equal
    responses are no preference, whatever was voted.
    """
    votes = _votes(session, study)
    two = len(systems_of(session, study.id)) == 2
    items = session.scalars(
        select(StudyItem)
        .where(StudyItem.study_id == study.id, StudyItem.kind == ItemKind.PAIR)
        .order_by(StudyItem.position)
    )
    for item in items:
        if item.id not in votes or item.response_a == item.response_b:
            continue
        name = item.sample_id if two else f"{item.sample_id}-{item.system_a}-{item.system_b}"
        share = sum(POINTS[winner] * n for winner, n in votes[item.id].items()) / votes[item.id].total()
        if share > 0.5:
            yield _row(item, name, share, a_first=True)
        elif share < 0.5:
            yield _row(item, name, share, a_first=False)
        elif ties == "keep":
            yield _row(item, f"{name}-tie-1", share, a_first=True)
            yield _row(item, f"{name}-tie-2", share, a_first=False)


def _votes(session: Session, study: Study) -> dict[str, Counter[Winner]]:
    """By item, how often each outcome was voted."""
    raters = rater_figures(session, study.id, Rules(**study.exclusion))
    excluded = {rater.id for rater in raters if rater.excluded_by}
    votes: dict[str, Counter[Winner]] = defaultdict(Counter)
    for vote in counted_judgments(session, study.id):
        if vote.rater not in excluded:
            votes[vote.item][vote.winner] += 1
    return votes


def _row(item: StudyItem, name: str, share: float, *, a_first: bool) -> dict[str, Any]:
    """``share``: of the votes, those for a."""
    responses, scores = (item.response_a, item.response_b), (share, 1 - share)
    first, second = (0, 1) if a_first else (1, 0)
    return {
        "id": name,
        "subset": item.subset,
        "prompt": item.prompt,
        "chosen": responses[first],
        "rejected": responses[second],
        "score_chosen": scores[first],
        "score_rejected": scores[second],
    }
