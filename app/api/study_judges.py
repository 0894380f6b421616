"""A study's pairs for a judge that is a model, and its verdicts."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from app.api.dependencies import Limit, Researcher, Transaction, problems
from app.api.schemas import Answer, Page
from app.api.studies import StudyId
from app.api.study_results import NumberedPairAnswer, readable_study
from app.audit import note
from app.errors import FieldError, invalid_request
from app.studies.judges import NoSuchPair, Verdict, keep_verdicts
from app.studies.pairs import numbered_pairs
from app.studies.statistics import Winner
from deft_engine.base import Name, Spec

router = APIRouter(prefix="/studies", tags=["studies"])


class NewVerdict(Spec):
    """What a judge says of a pair, in both orders."""

    pair: int = Field(ge=1, le=2**31 - 1)
    a_first: Winner
    """Which answer is better, when a's is shown first."""
    b_first: Winner


class NewVerdicts(Spec):
    """A judge's verdicts; a later one on the same pair takes the place of an earlier one."""

    judge: Name
    verdicts: list[NewVerdict] = Field(min_length=1, max_length=1000)


class JudgeAnswer(Answer):
    """A judge, and how many pairs it has judged."""

    object: Literal["study.judge"] = "study.judge"
    judge: str
    pairs: int


@router.get("/{study_id}/pairs", operation_id="study_pairs", responses=problems(409))
def study_pairs(
    study_id: StudyId,
    session: Transaction,
    caller: Researcher,
    limit: Limit = 20,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="The last pair's id.")] = 0,
) -> Page[NumberedPairAnswer]:
    """The pairs that raters judge, in the study's order, with their systems."""
    study = readable_study(session, study_id)
    pairs, has_more = numbered_pairs(session, study, after=after, limit=limit)
    return Page(data=[NumberedPairAnswer.model_validate(pair) for _, pair in pairs], has_more=has_more)


@router.post("/{study_id}/verdicts", operation_id="judge_study", responses=problems(409))
def judge_study(
    study_id: StudyId, asked: NewVerdicts, session: Transaction, caller: Researcher
) -> JudgeAnswer:
    """Keep what a model says of the pairs. It is a rater of its own: none of it is a vote."""
    study = readable_study(session, study_id)
    verdicts = [Verdict(one.pair, one.a_first, one.b_first) for one in asked.verdicts]
    try:
        pairs = keep_verdicts(session, study.id, asked.judge, verdicts)
    except NoSuchPair as error:
        place = f"/verdicts/{error.place}/pair"
        raise invalid_request([FieldError(pointer=place, code="unknown_pair", detail=str(error))]) from None
    note(session, caller, "study.judge", study.id, {"judge": asked.judge, "verdicts": str(len(verdicts))})
    return JudgeAnswer(judge=asked.judge, pairs=pairs)
