"""Every request of studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deft_client.call import Call, given, once, reads, reads_nothing, reads_page
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


def create_study(fields: StudyFields, idempotency_key: str | None) -> Call[Study]:
    return Call("POST", "/studies", reads(Study), json=dict(fields), headers=once(idempotency_key))


def plan_study(fields: StudyFields, win_rate: float | None, ties: float | None) -> Call[StudyPlan]:
    params = given(dry_run="true", win_rate=win_rate, ties=ties)
    return Call("POST", "/studies", reads(StudyPlan), params, json=dict(fields))


def retrieve_study(study_id: str) -> Call[Study]:
    return Call("GET", f"/studies/{study_id}", reads(Study))


def list_studies(limit: int | None, after: str | None) -> Call[Page[Study]]:
    return Call("GET", "/studies", reads_page(Study), given(limit=limit, after=after))


def add_annotator(
    study_id: str, name: str, subsets: Sequence[str], idempotency_key: str | None
) -> Call[Annotator]:
    body = {"name": name, "subsets": list(subsets)}
    path = f"/studies/{study_id}/annotators"
    return Call("POST", path, reads(Annotator), json=body, headers=once(idempotency_key))


def list_annotators(study_id: str) -> Call[Page[Annotator]]:
    return Call("GET", f"/studies/{study_id}/annotators", reads_page(Annotator))


def renew_link(study_id: str, annotator_id: str, idempotency_key: str | None) -> Call[RenewedLink]:
    path = f"/studies/{study_id}/annotators/{annotator_id}/link"
    return Call("POST", path, reads(RenewedLink), headers=once(idempotency_key))


def revoke_annotator(study_id: str, annotator_id: str, votes: str | None) -> Call[Annotator]:
    path = f"/studies/{study_id}/annotators/{annotator_id}"
    return Call("DELETE", path, reads(Annotator), given(votes=votes))


def unblind_study(study_id: str) -> Call[Study]:
    return Call("POST", f"/studies/{study_id}/unblind", reads(Study))


def look_at_study(study_id: str, idempotency_key: str | None) -> Call[Look]:
    return Call("POST", f"/studies/{study_id}/looks", reads(Look), headers=once(idempotency_key))


def study_disagreements(
    study_id: str, subset: str | None, limit: int | None, after: int | None
) -> Call[Page[Disagreement]]:
    params = given(subset=subset, limit=limit, after=after)
    return Call("GET", f"/studies/{study_id}/disagreements", reads_page(Disagreement), params)


def study_pairs(study_id: str, limit: int | None, after: int | None) -> Call[Page[StudyPair]]:
    return Call("GET", f"/studies/{study_id}/pairs", reads_page(StudyPair), given(limit=limit, after=after))


def judge_study(study_id: str, judge: str, verdicts: Sequence[StudyVerdict]) -> Call[JudgeState]:
    asked = {"judge": judge, "verdicts": [verdict.model_dump() for verdict in verdicts]}
    return Call("POST", f"/studies/{study_id}/verdicts", reads(JudgeState), json=asked)


def study_preferences(study_id: str, ties: str) -> Call[list[dict[str, Any]]]:
    return Call("GET", f"/studies/{study_id}/export.jsonl", reads(list[dict[str, Any]]), {"ties": ties})


def export_study(study_id: str) -> Call[bytes]:
    return Call("GET", f"/studies/{study_id}/export.csv", reads(bytes))


def next_assignment(study_id: str, after: str | None) -> Call[Assignment | None]:
    path = f"/studies/{study_id}/assignments:next"
    return Call("POST", path, reads(Assignment | None), given(after=after))


def last_assignment(study_id: str) -> Call[dict[str, str] | None]:
    return Call("GET", f"/studies/{study_id}/assignments:last", reads(dict[str, str] | None))


def vote(
    assignment_id: str, choice: str, comment: str | None, harmful: bool, seconds: float | None
) -> Call[VoteAnswer]:
    body = given(choice=choice, comment=comment, harmful=harmful or None, seconds=seconds)
    return Call("POST", f"/assignments/{assignment_id}", reads(VoteAnswer), json=body, headers=once())


def skip(assignment_id: str, reason: str, harmful: bool) -> Call[None]:
    body = {"reason": reason, "harmful": harmful}
    return Call("POST", f"/assignments/{assignment_id}/skip", reads_nothing, json=body, headers=once())


def undo_vote(assignment_id: str) -> Call[None]:
    return Call("POST", f"/assignments/{assignment_id}/undo", reads_nothing)


def study_results(study_id: str) -> Call[dict[str, Any]]:
    return Call("GET", f"/studies/{study_id}/results", dict)
