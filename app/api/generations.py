"""Imported generations: answers made elsewhere to a dataset's prompts, evaluated as those made here are."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.api.dataset_views import DatasetError, LedgerEntry, view_error
from app.api.dependencies import After, Limit, Researcher, ResearcherBeforehand, Transaction, Viewer, problems
from app.api.ledgers import ledger_of
from app.api.lookup import GenerationsId, generations_or_404
from app.api.pages import newest_first
from app.api.schemas import Answer, Page
from app.api.uploaded import delete_upload, upload_body
from app.auth import Principal
from app.db.graph import record_import
from app.db.locks import lock_graph
from app.db.models import Dataset, DatasetStatus
from app.db.queries import find_dataset
from app.db.session import transaction
from app.db.submit import submit_import
from app.errors import FieldError, invalid_request
from app.idempotency import IdempotencyHeader, Once, created, once_for
from app.ids import new_id
from app.resolver import dataset_ref
from app.store import get_store
from app.uploads import Upload, receive_upload
from deft_engine.base import DatasetName, Name, Spec
from deft_engine.data.imported_generations import FORMAT
from deft_engine.faults import faults
from deft_engine.plan import External, Made, plan_dataset, plan_generations

router = APIRouter(prefix="/generations", tags=["generations"])


class GenerationsFields(Spec):
    """What is said about an upload: form fields, or query parameters beside a raw body."""

    name: Name
    dataset: DatasetName


class GenerationsView(Answer):
    """Imported generations; the counts are there once they are ready."""

    id: str
    object: Literal["generations"] = "generations"
    name: str
    dataset: str
    """Whose prompts they answer."""
    status: DatasetStatus
    sha256: str
    """Of the bytes as sent."""
    size: int
    rows: int | None
    answers: int | None
    rejected: int | None
    """Rows that answer no sample; the validation says why."""
    unanswered: int | None
    """Samples of the dataset without an answer."""
    subsets: dict[str, int] | None
    """Answers of each subset."""
    error: DatasetError | None
    created_at: datetime
    links: dict[str, str]


@router.post(
    "",
    operation_id="import_generations",
    status_code=201,
    response_model=GenerationsView,
    responses=problems(409),
    openapi_extra=upload_body(
        {"name": {"type": "string"}, "dataset": {"type": "string"}}, required=["dataset"]
    ),
)
async def import_generations(
    request: Request,
    caller: ResearcherBeforehand,
    name: Annotated[Name | None, Query(description="With a raw body; a form has a field.")] = None,
    dataset: Annotated[DatasetName | None, Query(description="Whose prompts are answered.")] = None,
    idempotency_key: IdempotencyHeader = None,
) -> Response:
    """Upload answers to a dataset's prompts. They are matched after the answer: ask for their status."""
    async with receive_upload(request, list(GenerationsFields.model_fields)) as upload:
        asked = {"name": name or upload.filename or "untitled", **({"dataset": dataset} if dataset else {})}
        fields = _fields({**asked, **upload.fields})
        content = f"{upload.sha256}\n{fields.model_dump_json()}".encode()
        once = once_for(request, idempotency_key, content)
        return await run_in_threadpool(_store, upload, fields, caller, once)


@router.get("", operation_id="list_generations", responses=problems())
def list_generations(
    session: Transaction, caller: Viewer, limit: Limit = 20, after: After = None
) -> Page[GenerationsView]:
    """Imported generations, newest first."""
    of_answers = Dataset.answers_dataset_id.is_not(None)
    found, has_more = newest_first(session, Dataset, of_answers, limit=limit, after=after)
    return Page(data=[_view(each) for each in found], has_more=has_more)


@router.get("/{generations_id}", operation_id="get_generations", responses=problems())
def get_generations(generations_id: GenerationsId, session: Transaction, caller: Viewer) -> GenerationsView:
    """Imported generations."""
    return _view(generations_or_404(session, generations_id))


@router.get("/{generations_id}/validation", operation_id="generations_validation", responses=problems())
def generations_validation(
    generations_id: GenerationsId,
    session: Transaction,
    caller: Viewer,
    limit: Limit = 20,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="The last line of the page before.")] = 0,
) -> Page[LedgerEntry]:
    """The ledger: every row that answers no sample, and why. Of invalid generations, their error."""
    return ledger_of(session, generations_or_404(session, generations_id), limit=limit, after=after)


@router.delete(
    "/{generations_id}", operation_id="delete_generations", status_code=204, responses=problems(409)
)
def delete_generations(generations_id: GenerationsId, session: Transaction, caller: Researcher) -> None:
    """Delete imported generations, unless a live job uses them or they are being read right now."""
    lock_graph(session)
    delete_upload(session, generations_or_404(session, generations_id), "generations")


def _store(upload: Upload, fields: GenerationsFields, caller: Principal, once: Once) -> Response:
    """The upload into the store, and its rows; all or nothing."""
    with transaction() as session:
        return once.answer(session, caller, lambda: _create(session, upload, fields))


def _create(session: Session, upload: Upload, fields: GenerationsFields) -> Response:
    lock_graph(session)  # so that the dataset is not deleted in between
    dataset = _answered(session, fields.dataset)
    samples = Made(plan_dataset(dataset_ref(dataset)).fingerprint, "samples.parquet")
    source = External(f"upload:{upload.sha256}", upload.sha256)
    run = submit_import(session, plan_generations(source, samples))
    get_store().put(upload.path, upload.sha256)
    row = Dataset(
        id=new_id("gen"),
        name=fields.name,
        status=DatasetStatus.PROCESSING,
        sha256=upload.sha256,
        size=upload.size,
        requested_format=FORMAT,
        subset=None,
        answers_dataset_id=dataset.id,
        import_run_id=run.id,
    )
    record_import(row, run)
    session.add(row)
    session.flush()
    session.refresh(row)
    return created(_view(row), f"/generations/{row.id}")


def _answered(session: Session, dataset_id: str) -> Dataset:
    """The dataset that is answered.

    Raises:
        Problem: 422 if there is none, or it has no samples.
    """
    found = find_dataset(session, dataset_id)
    if found is None:
        detail = f"there is no dataset {dataset_id!r}; upload it first, or see GET /datasets"
        raise invalid_request([FieldError(pointer="/dataset", code="unknown_dataset", detail=detail)])
    if found.status is DatasetStatus.INVALID or (found.summary or {"samples": 1})["samples"] == 0:
        detail = f"dataset {dataset_id} has no samples that could be answered"
        raise invalid_request([FieldError(pointer="/dataset", code="unfit_dataset", detail=detail)])
    return found


def _fields(given: dict[str, Any]) -> GenerationsFields:
    try:
        return GenerationsFields.model_validate(given)
    except ValidationError as error:
        found = [FieldError(**fault._asdict()) for fault in faults(error.errors(), given)]
        raise invalid_request(found) from None


def _view(row: Dataset) -> GenerationsView:
    summary = row.summary or {}
    address = f"/generations/{row.id}"
    return GenerationsView(
        id=row.id,
        name=row.name,
        dataset=str(row.answers_dataset_id),
        status=row.status,
        sha256=row.sha256,
        size=row.size,
        answers=summary.get("samples"),
        **{name: summary.get(name) for name in ("rows", "rejected", "unanswered", "subsets")},
        error=view_error(row),
        created_at=row.created_at,
        links={
            "self": address,
            "validation": f"{address}/validation",
            "dataset": f"/datasets/{row.answers_dataset_id}",
        },
    )
