"""Every request of the API as a value: what is sent, and how its answer is read. Both clients send these."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

from pydantic import TypeAdapter

from deft_client.models import (
    Artifact,
    Dataset,
    Estimate,
    Event,
    Experiment,
    Generations,
    Job,
    Key,
    LedgerEntry,
    Page,
    Sample,
    Series,
)
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
from deft_engine.base import Spec

T = TypeVar("T")
JobRequest = Mapping[str, Any] | Spec
ExperimentFile = Literal["results.csv", "results.tex", "report.html"]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request; ``headers`` hold its idempotency key, so that a retry is the same request."""

    method: str
    path: str
    parse: Callable[[Any], T]
    params: dict[str, Any] = field(default_factory=dict)
    json: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    file: Path | None = None
    on_bytes: Callable[[int], None] | None = None

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does what sending it once does."""
        return self.method in ("GET", "DELETE") or "Idempotency-Key" in self.headers


def _as(kind: Any) -> Callable[[Any], Any]:
    return TypeAdapter(kind).validate_python


def _page(kind: Any) -> Callable[[Any], Any]:
    return Page[kind].model_validate


def _nothing(_: Any) -> None:
    return None


def _once(key: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": key or uuid.uuid4().hex}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


# -- datasets


def upload_dataset(
    path: Path,
    name: str | None,
    format: str,
    subset: str | None,
    idempotency_key: str | None,
    on_bytes: Callable[[int], None] | None,
) -> Call[Dataset]:
    fields = _given(name=name or path.name, format=format, subset=subset)
    return Call(
        "POST",
        "/datasets",
        _as(Dataset),
        json=fields,
        headers=_once(idempotency_key),
        file=path,
        on_bytes=on_bytes,
    )


def dataset_of_study(
    study_id: str, ties: str, name: str | None, idempotency_key: str | None
) -> Call[Dataset]:
    return import_dataset(_given(study=study_id, ties=ties, name=name), idempotency_key)


def import_dataset(fields: dict[str, Any], idempotency_key: str | None) -> Call[Dataset]:
    return Call("POST", "/datasets", _as(Dataset), json=fields, headers=_once(idempotency_key))


def hub_fields(**values: Any) -> dict[str, Any]:
    """The body that names a data set of the hub, without what is not given."""
    return _given(**values)


def retrieve_dataset(dataset_id: str) -> Call[Dataset]:
    return Call("GET", f"/datasets/{dataset_id}", _as(Dataset))


def list_datasets(limit: int | None, after: str | None) -> Call[Page[Dataset]]:
    return Call("GET", "/datasets", _page(Dataset), _given(limit=limit, after=after))


def dataset_validation(dataset_id: str, limit: int | None, after: str | None) -> Call[Page[LedgerEntry]]:
    path = f"/datasets/{dataset_id}/validation"
    return Call("GET", path, _page(LedgerEntry), _given(limit=limit, after=after))


def dataset_samples(
    dataset_id: str, level: str | None, subset: str | None, limit: int | None, after: str | None
) -> Call[Page[Sample]]:
    path = f"/datasets/{dataset_id}/samples"
    params = _given(level=level, subset=subset, limit=limit, after=after)
    return Call("GET", path, _page(Sample), params)


def delete_dataset(dataset_id: str) -> Call[None]:
    return Call("DELETE", f"/datasets/{dataset_id}", _nothing)


# -- generations


def import_generations(
    path: Path,
    dataset: str,
    name: str | None,
    idempotency_key: str | None,
    on_bytes: Callable[[int], None] | None,
) -> Call[Generations]:
    return Call(
        "POST",
        "/generations",
        _as(Generations),
        json={"name": name or path.name, "dataset": dataset},
        headers=_once(idempotency_key),
        file=path,
        on_bytes=on_bytes,
    )


def retrieve_generations(generations_id: str) -> Call[Generations]:
    return Call("GET", f"/generations/{generations_id}", _as(Generations))


def list_generations(limit: int | None, after: str | None) -> Call[Page[Generations]]:
    return Call("GET", "/generations", _page(Generations), _given(limit=limit, after=after))


def generations_validation(
    generations_id: str, limit: int | None, after: str | None
) -> Call[Page[LedgerEntry]]:
    path = f"/generations/{generations_id}/validation"
    return Call("GET", path, _page(LedgerEntry), _given(limit=limit, after=after))


def delete_generations(generations_id: str) -> Call[None]:
    return Call("DELETE", f"/generations/{generations_id}", _nothing)


# -- jobs


def create_job(spec: JobRequest, reuse: bool, idempotency_key: str | None) -> Call[Job]:
    params = {} if reuse else {"reuse": "false"}
    return Call("POST", "/jobs", _as(Job), params, _body(spec), _once(idempotency_key))


def estimate_job(spec: JobRequest, reuse: bool) -> Call[Estimate]:
    params = {"dry_run": "true"} | ({} if reuse else {"reuse": "false"})
    return Call("POST", "/jobs", _as(Estimate), params, _body(spec), _once())


def retrieve_job(job_id: str) -> Call[Job]:
    return Call("GET", f"/jobs/{job_id}", _as(Job))


def list_jobs(status: str | None, kind: str | None, limit: int | None, after: str | None) -> Call[Page[Job]]:
    params = _given(status=status, kind=kind, limit=limit, after=after)
    return Call("GET", "/jobs", _page(Job), params)


def move_job(job_id: str, move: str) -> Call[Job]:
    """``move``: cancel, pause or resume."""
    return Call("POST", f"/jobs/{job_id}/{move}", _as(Job))


def job_events(job_id: str, after: int | None, limit: int | None) -> Call[Page[Event]]:
    return Call("GET", f"/jobs/{job_id}/events", _page(Event), _given(after=after, limit=limit))


def job_metrics(
    job_id: str,
    names: Sequence[str] | None,
    from_step: int | None,
    to_step: int | None,
    max_points: int | None,
) -> Call[Page[Series]]:
    params = _given(
        name=",".join(names) if names else None, from_step=from_step, to_step=to_step, max_points=max_points
    )
    return Call("GET", f"/jobs/{job_id}/metrics", _page(Series), params)


def job_artifacts(job_id: str) -> Call[Page[Artifact]]:
    return Call("GET", f"/jobs/{job_id}/artifacts", _page(Artifact))


def artifact_path(job_id: str, name: str) -> str:
    """Where an artifact's bytes are; a download streams them, so it is no :class:`Call`."""
    return f"/jobs/{job_id}/artifacts/{quote(name)}"


def _body(spec: JobRequest) -> Any:
    return spec.model_dump(mode="json") if isinstance(spec, Spec) else dict(spec)


# -- experiments


def create_experiment(spec: JobRequest, idempotency_key: str | None) -> Call[Experiment]:
    return Call("POST", "/experiments", _as(Experiment), json=_body(spec), headers=_once(idempotency_key))


def retrieve_experiment(experiment_id: str) -> Call[Experiment]:
    return Call("GET", f"/experiments/{experiment_id}", _as(Experiment))


def list_experiments(limit: int | None, after: str | None) -> Call[Page[Experiment]]:
    return Call("GET", "/experiments", _page(Experiment), _given(limit=limit, after=after))


def cancel_experiment(experiment_id: str) -> Call[Experiment]:
    return Call("POST", f"/experiments/{experiment_id}/cancel", _as(Experiment))


def experiment_results(experiment_id: str) -> Call[dict[str, Any]]:
    return Call("GET", f"/experiments/{experiment_id}/results", dict)


def export_experiment(experiment_id: str, file: ExperimentFile) -> Call[bytes]:
    return Call("GET", f"/experiments/{experiment_id}/{file}", _as(bytes))


# -- keys


def create_key(name: str, role: str, idempotency_key: str | None) -> Call[Key]:
    return Call("POST", "/keys", _as(Key), json={"name": name, "role": role}, headers=_once(idempotency_key))


def list_keys(limit: int | None, after: str | None) -> Call[Page[Key]]:
    return Call("GET", "/keys", _page(Key), _given(limit=limit, after=after))


def revoke_key(key_id: str) -> Call[None]:
    return Call("DELETE", f"/keys/{key_id}", _nothing)


# -- studies


def create_study(fields: StudyFields, idempotency_key: str | None) -> Call[Study]:
    return Call("POST", "/studies", _as(Study), json=dict(fields), headers=_once(idempotency_key))


def plan_study(fields: StudyFields, win_rate: float | None, ties: float | None) -> Call[StudyPlan]:
    params = _given(dry_run="true", win_rate=win_rate, ties=ties)
    return Call("POST", "/studies", _as(StudyPlan), params, json=dict(fields))


def retrieve_study(study_id: str) -> Call[Study]:
    return Call("GET", f"/studies/{study_id}", _as(Study))


def list_studies(limit: int | None, after: str | None) -> Call[Page[Study]]:
    return Call("GET", "/studies", _page(Study), _given(limit=limit, after=after))


def add_annotator(
    study_id: str, name: str, subsets: Sequence[str], idempotency_key: str | None
) -> Call[Annotator]:
    body = {"name": name, "subsets": list(subsets)}
    path = f"/studies/{study_id}/annotators"
    return Call("POST", path, _as(Annotator), json=body, headers=_once(idempotency_key))


def list_annotators(study_id: str) -> Call[Page[Annotator]]:
    return Call("GET", f"/studies/{study_id}/annotators", _page(Annotator))


def renew_link(study_id: str, annotator_id: str, idempotency_key: str | None) -> Call[RenewedLink]:
    path = f"/studies/{study_id}/annotators/{annotator_id}/link"
    return Call("POST", path, _as(RenewedLink), headers=_once(idempotency_key))


def revoke_annotator(study_id: str, annotator_id: str, votes: str | None) -> Call[Annotator]:
    path = f"/studies/{study_id}/annotators/{annotator_id}"
    return Call("DELETE", path, _as(Annotator), _given(votes=votes))


def unblind_study(study_id: str) -> Call[Study]:
    return Call("POST", f"/studies/{study_id}/unblind", _as(Study))


def look_at_study(study_id: str, idempotency_key: str | None) -> Call[Look]:
    return Call("POST", f"/studies/{study_id}/looks", _as(Look), headers=_once(idempotency_key))


def study_disagreements(
    study_id: str, subset: str | None, limit: int | None, after: int | None
) -> Call[Page[Disagreement]]:
    params = _given(subset=subset, limit=limit, after=after)
    return Call("GET", f"/studies/{study_id}/disagreements", _page(Disagreement), params)


def study_pairs(study_id: str, limit: int | None, after: int | None) -> Call[Page[StudyPair]]:
    return Call("GET", f"/studies/{study_id}/pairs", _page(StudyPair), _given(limit=limit, after=after))


def judge_study(study_id: str, judge: str, verdicts: Sequence[StudyVerdict]) -> Call[JudgeState]:
    asked = {"judge": judge, "verdicts": [verdict.model_dump() for verdict in verdicts]}
    return Call("POST", f"/studies/{study_id}/verdicts", _as(JudgeState), json=asked)


def study_preferences(study_id: str, ties: str) -> Call[list[dict[str, Any]]]:
    return Call("GET", f"/studies/{study_id}/export.jsonl", _as(list[dict[str, Any]]), {"ties": ties})


def export_study(study_id: str) -> Call[bytes]:
    return Call("GET", f"/studies/{study_id}/export.csv", _as(bytes))


def next_assignment(study_id: str, after: str | None) -> Call[Assignment | None]:
    path = f"/studies/{study_id}/assignments:next"
    return Call("POST", path, _as(Assignment | None), _given(after=after))


def last_assignment(study_id: str) -> Call[dict[str, str] | None]:
    return Call("GET", f"/studies/{study_id}/assignments:last", _as(dict[str, str] | None))


def vote(
    assignment_id: str, choice: str, comment: str | None, harmful: bool, seconds: float | None
) -> Call[VoteAnswer]:
    body = _given(choice=choice, comment=comment, harmful=harmful or None, seconds=seconds)
    return Call("POST", f"/assignments/{assignment_id}", _as(VoteAnswer), json=body, headers=_once())


def skip(assignment_id: str, reason: str, harmful: bool) -> Call[None]:
    body = {"reason": reason, "harmful": harmful}
    return Call("POST", f"/assignments/{assignment_id}/skip", _nothing, json=body, headers=_once())


def undo_vote(assignment_id: str) -> Call[None]:
    return Call("POST", f"/assignments/{assignment_id}/undo", _nothing)


def study_results(study_id: str) -> Call[dict[str, Any]]:
    return Call("GET", f"/studies/{study_id}/results", dict)
