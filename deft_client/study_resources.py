"""``client.studies`` of the synchronous client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deft_client import calls
from deft_client.models import Annotator, Assignment, Page, RenewedLink, Study

if TYPE_CHECKING:
    from deft_client.client import DeftClient


class Studies:
    """``client.studies``; a rater's client uses the last five methods."""

    def __init__(self, client: DeftClient) -> None:
        self._client = client

    def create(
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
        return self._client.run(calls.create_study(fields, idempotency_key))

    def retrieve(self, study_id: str) -> Study:
        """One study."""
        return self._client.run(calls.retrieve_study(study_id))

    def list(self, *, limit: int | None = None, after: str | None = None) -> Page[Study]:
        """Studies, newest first."""
        return self._client.run(calls.list_studies(limit, after))

    def add_annotator(
        self, study_id: str, *, name: str, subsets: Sequence[str], idempotency_key: str | None = None
    ) -> Annotator:
        """A rater of some subsets, with a key and a personal link that are shown once."""
        return self._client.run(calls.add_annotator(study_id, name, subsets, idempotency_key))

    def annotators(self, study_id: str) -> Sequence[Annotator]:
        """All raters of a study, and how far they are."""
        return self._client.run(calls.list_annotators(study_id)).data

    def renew_link(
        self, study_id: str, annotator_id: str, *, idempotency_key: str | None = None
    ) -> RenewedLink:
        """A new personal link for a rater; the old one ends, votes stay."""
        return self._client.run(calls.renew_link(study_id, annotator_id, idempotency_key))

    def revoke_annotator(self, study_id: str, annotator_id: str) -> Annotator:
        """End a rater's access for good; votes stay."""
        return self._client.run(calls.revoke_annotator(study_id, annotator_id))

    def unblind(self, study_id: str) -> Study:
        """Close a study for good; its results are final."""
        return self._client.run(calls.unblind_study(study_id))

    def results(self, study_id: str) -> dict[str, Any]:
        """Win, tie and lose per subset and in all, with intervals."""
        return self._client.run(calls.study_results(study_id))

    def next_assignment(self, study_id: str, *, after: str | None = None) -> Assignment | None:
        """The rater's next pair, or the one after a pair that they hold; None when all are done."""
        return self._client.run(calls.next_assignment(study_id, after))

    def last_assignment(self, study_id: str) -> str | None:
        """The pair that the rater voted on or skipped last; None when there is none."""
        last = self._client.run(calls.last_assignment(study_id))
        return None if last is None else last["id"]

    def vote(
        self,
        assignment_id: str,
        choice: str,
        comment: str | None = None,
        *,
        harmful: bool = False,
        seconds: float | None = None,
    ) -> None:
        """``left``, ``tie`` or ``right``; ``harmful`` flags the pair, ``seconds`` is the time it took."""
        self._client.run(calls.vote(assignment_id, choice, comment, harmful, seconds))

    def skip(self, assignment_id: str, reason: str, *, harmful: bool = False) -> None:
        """Leave a pair unjudged; it does not come again."""
        self._client.run(calls.skip(assignment_id, reason, harmful))

    def undo(self, assignment_id: str) -> None:
        """Take a vote or a skip back."""
        self._client.run(calls.undo_vote(assignment_id))
