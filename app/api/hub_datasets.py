"""``POST /datasets`` with a data set of the Hugging Face hub instead of a file."""

from __future__ import annotations

import json

from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.responses import Response

from app.api.dataset_views import view_dataset
from app.auth import Principal
from app.db.graph import record_import
from app.db.models import Dataset, DatasetStatus
from app.db.session import transaction
from app.db.submit import submit_import
from app.errors import FieldError, Problem, invalid_request
from app.idempotency import Once, created
from app.ids import new_id
from app.resolver import dataset_ref
from app.settings import get_settings
from deft_engine.base import Name
from deft_engine.canonical import sha256_hex
from deft_engine.data.hub_dataset import HubDataset, check_hub
from deft_engine.errors import EndpointError
from deft_engine.faults import faults
from deft_engine.plan import plan_dataset
from deft_engine.stages import DatasetFormat


class HubFields(HubDataset):
    """What a request says of a data set on the hub."""

    name: Name | None = None
    """null: the data set's own."""
    format: DatasetFormat = "auto"
    subset: Name | None = None
    """Of rows that carry none and whose file lies in no folder that names one."""

    @property
    def dataset(self) -> HubDataset:
        """What tells the rows."""
        return HubDataset.model_validate(self.model_dump(include=set(HubDataset.model_fields)))


def hub_fields(body: bytes) -> HubFields:
    """The fields of a request.

    Raises:
        Problem: 422 for what is no such request, or a hub whose host is not allowed.
    """
    given = json.loads(body)
    try:
        fields = HubFields.model_validate(given)
    except ValidationError as error:
        raise invalid_request([FieldError(**f._asdict()) for f in faults(error.errors(), given)]) from None
    try:
        check_hub(get_settings().allowed_endpoint_hosts)
    except EndpointError as error:
        raise _refused("/hub", error.error_code, f"{error.message}; {error.hint}") from error
    return fields


def store_hub_dataset(fields: HubFields, caller: Principal, once: Once) -> Response:
    """The rows of the data set and of its reading."""
    with transaction() as session:
        return once.answer(session, caller, lambda: _create(session, fields))


def _create(session: Session, fields: HubFields) -> Response:
    asked = fields.dataset
    dataset = Dataset(
        id=new_id("ds"),
        name=fields.name or asked.hub,
        status=DatasetStatus.PROCESSING,
        sha256=sha256_hex(asked.uri.encode()),
        size=0,
        requested_format=fields.format,
        subset=fields.subset,
        hub=asked.model_dump(mode="json"),
    )
    run = submit_import(session, plan_dataset(dataset_ref(dataset)))
    dataset.import_run_id = run.id
    record_import(dataset, run)
    session.add(dataset)
    session.flush()
    session.refresh(dataset)
    return created(view_dataset(dataset), f"/datasets/{dataset.id}")


def _refused(pointer: str, code: str, detail: str) -> Problem:
    return invalid_request([FieldError(pointer=pointer, code=code, detail=detail)])
