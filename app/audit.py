"""The audit log: who did what to keys and studies, and in which request."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.orm import Session

from app.auth import Principal
from app.db.models import AuditEntry


def note(session: Session, caller: Principal, action: str, target: str, detail: Mapping[str, str]) -> None:
    """Write down what the caller's request does to ``target``, in the transaction that does it."""
    session.add(
        AuditEntry(
            actor=caller.key_id,
            action=action,
            target=target,
            detail=dict(detail),
            request_id=caller.request_id,
        )
    )
