"""API keys: made, listed and revoked by admins."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import sqlalchemy as sa
from fastapi import APIRouter
from pydantic import AfterValidator, AwareDatetime
from sqlalchemy.orm import Session
from starlette.responses import Response

from app.api.dependencies import Admin, After, Limit, Transaction, problems
from app.api.pages import newest_first
from app.api.schemas import Answer, Page
from app.audit import note
from app.db.models import ApiKey, Role
from app.errors import Problem, not_found
from app.idempotency import Idempotent, created
from app.keys import create_key, is_usable
from deft_engine.base import Name, Spec

router = APIRouter(prefix="/keys", tags=["keys"])


def _in_future(time: datetime) -> datetime:
    if time <= datetime.now(UTC):
        raise ValueError("lies in the past; a key must expire later than now")
    return time


class NewKey(Spec):
    """What a new key is to be."""

    name: Name
    role: Literal["admin", "researcher", "viewer"]
    """Annotators' keys come from their study."""
    expires_at: Annotated[AwareDatetime, AfterValidator(_in_future)] | None = None


class Key(Answer):
    """An API key, without its text."""

    id: str
    object: Literal["key"] = "key"
    name: str
    role: Role
    hint: str
    """Its last four characters."""
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class CreatedKey(Key):
    """A new key; ``key`` is shown this once."""

    key: str


@router.post(
    "", operation_id="create_key", status_code=201, response_model=CreatedKey, responses=problems(409)
)
def make_key(asked: NewKey, session: Transaction, caller: Admin, once: Idempotent) -> Response:
    """Make a key. Its text is in this answer and nowhere else."""

    def create() -> Response:
        key, text = create_key(session, name=asked.name, role=Role(asked.role), expires_at=asked.expires_at)
        note(session, caller, "key.create", key.id, {"name": key.name, "role": key.role})
        session.refresh(key)
        shown = Key.model_validate(key).model_dump()
        return created(CreatedKey(**shown, key=text), f"/keys/{key.id}")

    return once.answer(session, caller, create)


@router.get("", operation_id="list_keys", responses=problems())
def list_keys(session: Transaction, caller: Admin, limit: Limit = 20, after: After = None) -> Page[Key]:
    """Keys, newest first, revoked ones included."""
    keys, has_more = newest_first(session, ApiKey, limit=limit, after=after)
    return Page(data=[Key.model_validate(key) for key in keys], has_more=has_more)


@router.delete("/{key_id}", operation_id="revoke_key", responses=problems(409))
def revoke_key(key_id: str, session: Transaction, caller: Admin) -> Key:
    """Revoke a key at once and for good; its row stays for the record."""
    key = session.get(ApiKey, key_id) if "\x00" not in key_id else None
    if key is None:
        raise not_found("key", key_id)
    if key.revoked_at is None:
        _keep_an_admin(session, key)
        key.revoked_at = datetime.now(UTC)
        note(session, caller, "key.revoke", key.id, {"name": key.name, "role": key.role})
    return Key.model_validate(key)


def _keep_an_admin(session: Session, key: ApiKey) -> None:
    admins = session.scalars(
        sa.select(ApiKey.id).where(ApiKey.role == Role.ADMIN, is_usable()).with_for_update()
    ).all()
    if admins == [key.id]:
        raise Problem(
            409,
            "last_admin_key",
            "This is the last admin key",
            "make another admin key, then revoke this one",
        )
