"""API keys: 256 random bits that are shown once and kept as their SHA-256."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.models import ApiKey, Role
from app.ids import new_id

KEY_PREFIX = "deft_"
KEY_PATTERN = re.compile(r"deft_[A-Za-z0-9_-]{43}")


def new_secret() -> str:
    """256 random bits, URL-safe."""
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """What is kept of a key, a cookie or a personal link; 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def create_key(
    session: Session, *, name: str, role: Role, expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """A new key's row (added to the session) and its text, which nobody can find out again."""
    text = KEY_PREFIX + new_secret()
    key = ApiKey(
        id=new_id("key"), name=name, role=role, hash=hash_secret(text), hint=text[-4:], expires_at=expires_at
    )
    session.add(key)
    session.flush()
    return key, text


def is_usable() -> sa.ColumnElement[bool]:
    """In a query: the key is neither revoked nor expired, by the database's clock."""
    lasts = ApiKey.expires_at.is_(None) | (ApiKey.expires_at > sa.func.now())
    return ApiKey.revoked_at.is_(None) & lasts
