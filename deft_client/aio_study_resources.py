"""``client.studies`` of the asynchronous client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deft_client import calls
from deft_client.models import Annotator, Assignment, Page, RenewedLink, Study

if TYPE_CHECKING:
    from deft_client.aio import AsyncDeftClient


class Studies:
    """``client.studies``; a rater's client uses the last five methods."""

    def __init__(self, client: AsyncDeftClient) -> None:
        self._client = client

    async def create(
        self,
        *,
        name: str,
        a: str,
        b: str,
        per_subset: int = 125,
        protocol: str = "paper",
        criteria: str | None = None,
        seed: int | None = None,
        idempotency_key: str | None = None,
    ) -> Study:
        """A blind comparison of jobs ``a`` and ``b``."""
        fields = {"name": name, "a": a, "b": b, "per_subset": per_subset, "protocol": protocol}
        fields |= {k: v for k, v in (("criteria", criteria), ("seed", seed)) if v is not None}
        return await self._client.run(calls.create_study(fields, idempotency_key))

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

    async def revoke_annotator(self, study_id: str, annotator_id: str) -> Annotator:
        """End a rater's access for good; votes stay."""
        return await self._client.run(calls.revoke_annotator(study_id, annotator_id))

    async def unblind(self, study_id: str) -> Study:
        """Close a study for good; its results are final."""
        return await self._client.run(calls.unblind_study(study_id))

    async def results(self, study_id: str) -> dict[str, Any]:
        """Win, tie and lose per subset and in all, with intervals."""
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
    ) -> None:
        """``left``, ``tie`` or ``right``; ``harmful`` flags the pair, ``seconds`` is the time it took."""
        await self._client.run(calls.vote(assignment_id, choice, comment, harmful, seconds))

    async def skip(self, assignment_id: str, reason: str, *, harmful: bool = False) -> None:
        """Leave a pair unjudged; it does not come again."""
        await self._client.run(calls.skip(assignment_id, reason, harmful))

    async def undo(self, assignment_id: str) -> None:
        """Take a vote or a skip back."""
        await self._client.run(calls.undo_vote(assignment_id))
