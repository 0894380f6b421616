"""The ledger of an upload: every row that was not used, and why."""

from __future__ import annotations

from sqlalchemy.orm import Session

from app.api.dataset_views import LedgerEntry, view_error
from app.api.schemas import Page
from app.dataset_pages import ledger_page
from app.db.models import Dataset
from app.db.queries import artifact_of_run
from app.store import get_store


def ledger_of(session: Session, upload: Dataset, *, limit: int, after: int) -> Page[LedgerEntry]:
    """A page of it; of an invalid upload its error."""
    ledger = artifact_of_run(session, upload.import_run_id, "ledger.jsonl")
    if ledger is None:
        error = view_error(upload)
        entries = [LedgerEntry(line=error.line, code=error.code, detail=error.message)] if error else []
        return Page(data=[entry for entry in entries if (entry.line or 1) > after], has_more=False)
    rows, has_more = ledger_page(get_store().get(ledger.sha256), after=after, limit=limit)
    return Page(data=[LedgerEntry.model_validate(row) for row in rows], has_more=has_more)
