"""``client.studies`` of the synchronous client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deft_client import calls
from deft_client.models import Annotator, Assignment, Page, RenewedLink, Study

if TYPE_CHECKING:
    from deft_client.client import DeftClient


class Studies:
    """``client.studies``; a rater's client uses the last three methods."""

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

    def next_assignment(self, study_id: str) -> Assignment | None:
        """The rater's next pair; None when all are done."""
        return self._client.run(calls.next_assignment(study_id))

    def vote(self, assignment_id: str, choice: str, comment: str | None = None) -> None:
        """``left``, ``tie`` or ``right``."""
        self._client.run(calls.vote(assignment_id, choice, comment))

    def undo(self, assignment_id: str) -> None:
        """Take a vote back."""
        self._client.run(calls.undo_vote(assignment_id))
