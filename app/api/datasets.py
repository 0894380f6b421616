"""Datasets: uploads, what was read from them and what was not."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.api.dataset_views import DatasetView, LedgerEntry, SampleView, view_dataset, view_sample
from app.api.dependencies import After, Limit, Researcher, ResearcherBeforehand, Transaction, Viewer, problems
from app.api.hub_datasets import HubFields, hub_fields, store_hub_dataset
from app.api.json_bodies import request_object
from app.api.ledgers import ledger_of
from app.api.lookup import DatasetId, dataset_or_404
from app.api.pages import newest_first
from app.api.schemas import Page
from app.api.study_datasets import StudyFields, study_fields, votes_as_file
from app.api.uploaded import delete_upload, upload_body
from app.audit import note
from app.auth import Principal
from app.dataset_pages import sample_page
from app.db.augmented import forget_dataset
from app.db.graph import record_import
from app.db.locks import lock_graph
from app.db.models import Dataset, DatasetStatus
from app.db.queries import (
    artifact_of_run,
    generations_of_dataset,
    grade_run,
)
from app.db.session import transaction
from app.db.submit import submit_import
from app.errors import FieldError, Problem, invalid_request
from app.idempotency import IdempotencyHeader, Once, created, once_for
from app.ids import new_id
from app.store import get_store
from app.uploads import Upload, receive_upload, written_upload
from deft_engine.base import Name, Spec
from deft_engine.faults import faults
from deft_engine.plan import DatasetRef, External, plan_dataset
from deft_engine.stages import DatasetFormat, ImportSpec
from deft_engine.types import Level

router = APIRouter(prefix="/datasets", tags=["datasets"])

_BODY = upload_body(
    {
        "name": {"type": "string"},
        "format": {"type": "string", "enum": list(get_args(DatasetFormat))},
        "subset": {"type": "string"},
    }
)
_BODY["requestBody"]["content"]["application/json"] = {
    "schema": {"anyOf": [HubFields.model_json_schema(), StudyFields.model_json_schema()]}
}


class UploadFields(Spec):
    """What is said about an upload: form fields, or query parameters beside a raw body."""

    name: Name
    format: DatasetFormat = "auto"
    subset: Name | None = None


@router.post(
    "",
    operation_id="create_dataset",
    status_code=201,
    response_model=DatasetView,
    responses=problems(409),
    openapi_extra=_BODY,
)
async def create_dataset(
    request: Request,
    caller: ResearcherBeforehand,
    name: Annotated[Name | None, Query(description="With a raw body; a form has a field.")] = None,
    format: Annotated[DatasetFormat, Query()] = "auto",
    subset: Annotated[Name | None, Query(description="Of rows that carry none.")] = None,
    idempotency_key: IdempotencyHeader = None,
) -> Response:
    """Upload a file, or name a data set of the Hugging Face hub or a study with its votes (JSON).

    It is read and validated after the answer: ask `GET /datasets/{id}` for its status.
    """
    asked_as_json, request = await request_object(request)
    if asked_as_json is not None:
        once = once_for(request, idempotency_key, asked_as_json)
        if votes := study_fields(asked_as_json):
            return await run_in_threadpool(_store_votes, votes, caller, once)
        return await run_in_threadpool(store_hub_dataset, hub_fields(asked_as_json), caller, once)
    async with receive_upload(request, list(UploadFields.model_fields)) as upload:
        asked = {"name": name or upload.filename or "untitled", "format": format, "subset": subset}
        fields = _fields({**asked, **upload.fields})
        content = f"{upload.sha256}\n{fields.model_dump_json()}".encode()
        once = once_for(request, idempotency_key, content)
        return await run_in_threadpool(_store, upload, fields, caller, once)


@router.get("", operation_id="list_datasets", responses=problems())
def list_datasets(
    session: Transaction, caller: Viewer, limit: Limit = 20, after: After = None
) -> Page[DatasetView]:
    """Datasets, newest first."""
    of_samples = Dataset.answers_dataset_id.is_(None)
    datasets, has_more = newest_first(session, Dataset, of_samples, limit=limit, after=after)
    return Page(data=[view_dataset(dataset) for dataset in datasets], has_more=has_more)


@router.get("/{dataset_id}", operation_id="get_dataset", responses=problems())
def get_dataset(dataset_id: DatasetId, session: Transaction, caller: Viewer) -> DatasetView:
    """One dataset."""
    return view_dataset(dataset_or_404(session, dataset_id))


@router.get("/{dataset_id}/validation", operation_id="dataset_validation", responses=problems())
def dataset_validation(
    dataset_id: DatasetId,
    session: Transaction,
    caller: Viewer,
    limit: Limit = 20,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="The last line of the page before.")] = 0,
) -> Page[LedgerEntry]:
    """The ledger: every row that was not used, and why. Of an invalid dataset, its error."""
    return ledger_of(session, dataset_or_404(session, dataset_id), limit=limit, after=after)


@router.get("/{dataset_id}/samples", operation_id="dataset_samples", responses=problems(409))
def dataset_samples(
    dataset_id: DatasetId,
    session: Transaction,
    caller: Viewer,
    level: Annotated[Level | None, Query(description="Of the newest grading, or that of `job`.")] = None,
    subset: Annotated[str | None, Query(max_length=500, pattern=r"^[^\x00]*$")] = None,
    job: Annotated[
        str | None, Query(max_length=200, pattern=r"^[^\x00]*$", description="Whose levels to show.")
    ] = None,
    limit: Limit = 20,
    after: Annotated[str | None, Query(max_length=1000, description="The last sample's id.")] = None,
) -> Page[SampleView]:
    """Samples in the file's order."""
    dataset = dataset_or_404(session, dataset_id)
    samples = artifact_of_run(session, dataset.import_run_id, "samples.parquet")
    if samples is None:
        raise _not_ready(dataset)
    graded = grade_run(session, dataset, job)
    if graded is None and (level is not None or job is not None):
        raise _not_graded(dataset, job)
    levels = artifact_of_run(session, graded.id, "levels.parquet") if graded else None
    store = get_store()
    page, has_more = sample_page(
        store.get(samples.sha256),
        store.get(levels.sha256) if levels else None,
        level=level,
        subset=subset,
        after=after,
        limit=limit,
    )
    data = [view_sample(sample, found) for sample, found in page]
    return Page(data=data, has_more=has_more)


@router.delete("/{dataset_id}", operation_id="delete_dataset", status_code=204, responses=problems(409))
def delete_dataset(dataset_id: DatasetId, session: Transaction, caller: Researcher) -> None:
    """Delete a dataset and its upload, unless a live job uses it or it is being read right now.

    What jobs made of it stays theirs.
    """
    lock_graph(session)
    dataset = dataset_or_404(session, dataset_id)
    if generations := generations_of_dataset(session, dataset_id):
        raise Problem(
            409,
            "dataset_in_use",
            "The dataset is in use",
            f"imported generations answer it: {', '.join(generations)}; delete them first",
        )
    forget_dataset(session, dataset.id)
    delete_upload(session, dataset, "dataset")


def _store(upload: Upload, fields: UploadFields, caller: Principal, once: Once) -> Response:
    """The upload into the store, and its rows; all or nothing."""
    with transaction() as session:
        return once.answer(session, caller, lambda: _create(session, upload, fields))


def _store_votes(asked: StudyFields, caller: Principal, once: Once) -> Response:
    """A study's votes into the store, as an upload would be."""

    def create() -> Response:
        name, content = votes_as_file(session, asked)
        with written_upload(content) as upload:
            response = _create(session, upload, UploadFields(name=name, format="pairwise"))
        note(session, caller, "study.dataset", asked.study, {"dataset": response.headers["Location"]})
        return response

    with transaction() as session:
        return once.answer(session, caller, create)


def _create(session: Session, upload: Upload, fields: UploadFields) -> Response:
    spec = ImportSpec(format=fields.format, subset=fields.subset)
    source = External(f"upload:{upload.sha256}", upload.sha256)
    run = submit_import(session, plan_dataset(DatasetRef(source, spec)))
    get_store().put(upload.path, upload.sha256)  # under the graph's lock, so that no delete comes between
    dataset = Dataset(
        id=new_id("ds"),
        name=fields.name,
        status=DatasetStatus.PROCESSING,
        sha256=upload.sha256,
        size=upload.size,
        requested_format=fields.format,
        subset=fields.subset,
        import_run_id=run.id,
    )
    record_import(dataset, run)
    session.add(dataset)
    session.flush()
    session.refresh(dataset)
    return created(view_dataset(dataset), f"/datasets/{dataset.id}")


def _fields(given: dict[str, Any]) -> UploadFields:
    try:
        return UploadFields.model_validate(given)
    except ValidationError as error:
        found = [FieldError(**fault._asdict()) for fault in faults(error.errors(), given)]
        raise invalid_request(found) from None


def _not_ready(dataset: Dataset) -> Problem:
    if dataset.status is DatasetStatus.INVALID:
        advice = "it is invalid; GET its validation for the reason"
    else:
        advice = "it is still being read; ask again when its status is ready"
    return Problem(409, "dataset_not_ready", "The dataset has no samples", f"{dataset.id}: {advice}")


def _not_graded(dataset: Dataset, job_id: str | None) -> Problem:
    by = f"job {job_id} has not graded it" if job_id else "no job has graded it"
    return Problem(
        409, "not_graded", "The dataset has no levels", f"{dataset.id}: {by}; run a job of kind grade"
    )
