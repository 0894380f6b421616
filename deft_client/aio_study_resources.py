"""``client.studies`` of the asynchronous client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

from deft_client import study_calls as calls
from deft_client.models import Page
from deft_client.study_fields import StudyFields
from deft_client.study_models import (
    Annotator,
    Assignment,
    Disagreement,
    JudgeState,
    Look,
    RenewedLink,
    Study,
    StudyPair,
    StudyPlan,
    StudyVerdict,
    VoteAnswer,
)

if TYPE_CHECKING:
    from deft_client.aio import AsyncDeftClient


class Studies:
    """``client.studies``; a rater's client uses the last five methods."""

    def __init__(self, client: AsyncDeftClient) -> None:
        self._client = client

    async def create(self, *, idempotency_key: str | None = None, **fields: Unpack[StudyFields]) -> Study:
        """A blind comparison of jobs ``a`` and ``b``, or of two and more ``systems``."""
        return await self._client.run(calls.create_study(fields, idempotency_key))

    async def plan(
        self, *, win_rate: float | None = None, ties: float | None = None, **fields: Unpack[StudyFields]
    ) -> StudyPlan:
        """What such a study would ask and could see, by the power of the sign test; nothing is created.

        ``win_rate``: the wins among decided votes that are to be seen; ``ties``: the share of ties.
        """
        return await self._client.run(calls.plan_study(fields, win_rate, ties))

    async def retrieve(self, study_id: str) -> Study:
        """One study."""
        return await self._client.run(calls.retrieve_study(study_id))

    async def list(self, *, limit: int | None = None, after: str | None = None) -> Page[Study]:
        """Studies, newest first."""
        return await self._client.run(calls.list_studies(limit, after))

    async def add_annotator(
        self, study_id: str, *, name: str, subsets: Sequence[str], idempotency_key: str | None = None
    ) -> Annotator:
        """A rater of some subsets, with a key and a personal link that are shown once."""
        return await self._client.run(calls.add_annotator(study_id, name, subsets, idempotency_key))

    async def annotators(self, study_id: str) -> Sequence[Annotator]:
        """All raters of a study, and how far they are."""
        return (await self._client.run(calls.list_annotators(study_id))).data

    async def renew_link(
        self, study_id: str, annotator_id: str, *, idempotency_key: str | None = None
    ) -> RenewedLink:
        """A new personal link for a rater; the old one ends, votes stay."""
        return await self._client.run(calls.renew_link(study_id, annotator_id, idempotency_key))

    async def revoke_annotator(
        self, study_id: str, annotator_id: str, *, votes: Literal["keep", "exclude"] | None = None
    ) -> Annotator:
        """End a rater's access for good; with ``votes="exclude"`` none of their votes counts any more."""
        return await self._client.run(calls.revoke_annotator(study_id, annotator_id, votes))

    async def unblind(self, study_id: str) -> Study:
        """Close a study for good; its results are final."""
        return await self._client.run(calls.unblind_study(study_id))

    async def look(self, study_id: str, *, idempotency_key: str | None = None) -> Look:
        """Take the next planned interim look at a study whose results are hidden."""
        return await self._client.run(calls.look_at_study(study_id, idempotency_key))

    async def disagreements(
        self, study_id: str, *, subset: str | None = None, limit: int | None = None, after: int | None = None
    ) -> Page[Disagreement]:
        """The pairs on which raters differ, with who says what."""
        return await self._client.run(calls.study_disagreements(study_id, subset, limit, after))

    async def pairs(
        self, study_id: str, *, limit: int | None = None, after: int | None = None
    ) -> Page[StudyPair]:
        """The pairs that raters judge, with their systems."""
        return await self._client.run(calls.study_pairs(study_id, limit, after))

    async def judge(self, study_id: str, judge: str, verdicts: Sequence[StudyVerdict]) -> JudgeState:
        """Keep what a model says of the pairs; it is a rater of its own, and none of it is a vote."""
        return await self._client.run(calls.judge_study(study_id, judge, verdicts))

    async def preferences(
        self, study_id: str, *, ties: Literal["leave_out", "keep"] = "leave_out"
    ) -> Sequence[dict[str, Any]]:
        """What raters prefer, a row a pair, in the format ``pairwise``."""
        return await self._client.run(calls.study_preferences(study_id, ties))

    async def export(self, study_id: str) -> bytes:
        """Every standing vote, a row each, as CSV."""
        return await self._client.run(calls.export_study(study_id))

    async def results(self, study_id: str) -> dict[str, Any]:
        """Win, tie and lose per subset and in all, with intervals, and figures of each rater."""
        return await self._client.run(calls.study_results(study_id))

    async def next_assignment(self, study_id: str, *, after: str | None = None) -> Assignment | None:
        """The rater's next pair, or the one after a pair that they hold; None when all are done."""
        return await self._client.run(calls.next_assignment(study_id, after))

    async def last_assignment(self, study_id: str) -> str | None:
        """The pair that the rater voted on or skipped last; None when there is none."""
        last = await self._client.run(calls.last_assignment(study_id))
        return None if last is None else last["id"]

    async def vote(
        self,
        assignment_id: str,
        choice: str,
        comment: str | None = None,
        *,
        harmful: bool = False,
        seconds: float | None = None,
    ) -> VoteAnswer:
        """``left``, ``tie`` or ``right``; ``harmful`` flags the pair, ``seconds`` is the time it took."""
        return await self._client.run(calls.vote(assignment_id, choice, comment, harmful, seconds))

    async def skip(self, assignment_id: str, reason: str, *, harmful: bool = False) -> None:
        """Leave a pair unjudged; it does not come again."""
        await self._client.run(calls.skip(assignment_id, reason, harmful))

    async def undo(self, assignment_id: str) -> None:
        """Take a vote or a skip back."""
        await self._client.run(calls.undo_vote(assignment_id))
