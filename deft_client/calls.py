"""Every request of the API but those of studies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from deft_client.call import Call, given, once, reads, reads_nothing, reads_page
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
from deft_engine.base import Spec

JobRequest = Mapping[str, Any] | Spec
ExperimentFile = Literal["results.csv", "results.tex", "report.html"]


# -- datasets


def upload_dataset(
    path: Path,
    name: str | None,
    format: str,
    subset: str | None,
    idempotency_key: str | None,
    on_bytes: Callable[[int], None] | None,
) -> Call[Dataset]:
    fields = given(name=name or path.name, format=format, subset=subset)
    return Call(
        "POST",
        "/datasets",
        reads(Dataset),
        json=fields,
        headers=once(idempotency_key),
        file=path,
        on_bytes=on_bytes,
    )


def dataset_of_study(
    study_id: str, ties: str, name: str | None, idempotency_key: str | None
) -> Call[Dataset]:
    return import_dataset(given(study=study_id, ties=ties, name=name), idempotency_key)


def import_dataset(fields: dict[str, Any], idempotency_key: str | None) -> Call[Dataset]:
    return Call("POST", "/datasets", reads(Dataset), json=fields, headers=once(idempotency_key))


def hub_fields(**values: Any) -> dict[str, Any]:
    """The body that names a data set of the hub, without what is not given."""
    return given(**values)


def retrieve_dataset(dataset_id: str) -> Call[Dataset]:
    return Call("GET", f"/datasets/{dataset_id}", reads(Dataset))


def list_datasets(limit: int | None, after: str | None) -> Call[Page[Dataset]]:
    return Call("GET", "/datasets", reads_page(Dataset), given(limit=limit, after=after))


def dataset_validation(dataset_id: str, limit: int | None, after: str | None) -> Call[Page[LedgerEntry]]:
    path = f"/datasets/{dataset_id}/validation"
    return Call("GET", path, reads_page(LedgerEntry), given(limit=limit, after=after))


def dataset_samples(
    dataset_id: str, level: str | None, subset: str | None, limit: int | None, after: str | None
) -> Call[Page[Sample]]:
    path = f"/datasets/{dataset_id}/samples"
    params = given(level=level, subset=subset, limit=limit, after=after)
    return Call("GET", path, reads_page(Sample), params)


def delete_dataset(dataset_id: str) -> Call[None]:
    return Call("DELETE", f"/datasets/{dataset_id}", reads_nothing)


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
        reads(Generations),
        json={"name": name or path.name, "dataset": dataset},
        headers=once(idempotency_key),
        file=path,
        on_bytes=on_bytes,
    )


def retrieve_generations(generations_id: str) -> Call[Generations]:
    return Call("GET", f"/generations/{generations_id}", reads(Generations))


def list_generations(limit: int | None, after: str | None) -> Call[Page[Generations]]:
    return Call("GET", "/generations", reads_page(Generations), given(limit=limit, after=after))


def generations_validation(
    generations_id: str, limit: int | None, after: str | None
) -> Call[Page[LedgerEntry]]:
    path = f"/generations/{generations_id}/validation"
    return Call("GET", path, reads_page(LedgerEntry), given(limit=limit, after=after))


def delete_generations(generations_id: str) -> Call[None]:
    return Call("DELETE", f"/generations/{generations_id}", reads_nothing)


# -- jobs


def create_job(spec: JobRequest, reuse: bool, idempotency_key: str | None) -> Call[Job]:
    params = {} if reuse else {"reuse": "false"}
    return Call("POST", "/jobs", reads(Job), params, _body(spec), once(idempotency_key))


def estimate_job(spec: JobRequest, reuse: bool) -> Call[Estimate]:
    params = {"dry_run": "true"} | ({} if reuse else {"reuse": "false"})
    return Call("POST", "/jobs", reads(Estimate), params, _body(spec), once())


def retrieve_job(job_id: str) -> Call[Job]:
    return Call("GET", f"/jobs/{job_id}", reads(Job))


def list_jobs(status: str | None, kind: str | None, limit: int | None, after: str | None) -> Call[Page[Job]]:
    params = given(status=status, kind=kind, limit=limit, after=after)
    return Call("GET", "/jobs", reads_page(Job), params)


def move_job(job_id: str, move: str) -> Call[Job]:
    """``move``: cancel, pause or resume."""
    return Call("POST", f"/jobs/{job_id}/{move}", reads(Job))


def job_events(job_id: str, after: int | None, limit: int | None) -> Call[Page[Event]]:
    return Call("GET", f"/jobs/{job_id}/events", reads_page(Event), given(after=after, limit=limit))


def job_metrics(
    job_id: str,
    names: Sequence[str] | None,
    from_step: int | None,
    to_step: int | None,
    max_points: int | None,
) -> Call[Page[Series]]:
    params = given(
        name=",".join(names) if names else None, from_step=from_step, to_step=to_step, max_points=max_points
    )
    return Call("GET", f"/jobs/{job_id}/metrics", reads_page(Series), params)


def job_artifacts(job_id: str) -> Call[Page[Artifact]]:
    return Call("GET", f"/jobs/{job_id}/artifacts", reads_page(Artifact))


def artifact_path(job_id: str, name: str) -> str:
    """Where an artifact's bytes are; a download streams them, so it is no :class:`Call`."""
    return f"/jobs/{job_id}/artifacts/{quote(name)}"


def _body(spec: JobRequest) -> Any:
    return spec.model_dump(mode="json") if isinstance(spec, Spec) else dict(spec)


# -- experiments


def create_experiment(spec: JobRequest, idempotency_key: str | None) -> Call[Experiment]:
    return Call("POST", "/experiments", reads(Experiment), json=_body(spec), headers=once(idempotency_key))


def retrieve_experiment(experiment_id: str) -> Call[Experiment]:
    return Call("GET", f"/experiments/{experiment_id}", reads(Experiment))


def list_experiments(limit: int | None, after: str | None) -> Call[Page[Experiment]]:
    return Call("GET", "/experiments", reads_page(Experiment), given(limit=limit, after=after))


def cancel_experiment(experiment_id: str) -> Call[Experiment]:
    return Call("POST", f"/experiments/{experiment_id}/cancel", reads(Experiment))


def experiment_results(experiment_id: str) -> Call[dict[str, Any]]:
    return Call("GET", f"/experiments/{experiment_id}/results", dict)


def export_experiment(experiment_id: str, file: ExperimentFile, cases: bool) -> Call[bytes]:
    params = {} if cases else {"cases": "false"}
    return Call("GET", f"/experiments/{experiment_id}/{file}", reads(bytes), params)


# -- keys


def create_key(name: str, role: str, idempotency_key: str | None) -> Call[Key]:
    return Call("POST", "/keys", reads(Key), json={"name": name, "role": role}, headers=once(idempotency_key))


def list_keys(limit: int | None, after: str | None) -> Call[Page[Key]]:
    return Call("GET", "/keys", reads_page(Key), given(limit=limit, after=after))


def revoke_key(key_id: str) -> Call[None]:
    return Call("DELETE", f"/keys/{key_id}", reads_nothing)
