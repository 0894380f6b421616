"""Who may call, what they did, and what was answered."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, ForeignKey, Identity, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db.models.base import Base, Json, text_enum


class Role(StrEnum):
    ADMIN = "admin"
    RESEARCHER = "researcher"
    ANNOTATOR = "annotator"
    VIEWER = "viewer"


class ApiKey(Base):
    """A key, as the SHA-256 of its 256 random bits; an annotator's key belongs to one study."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    role: Mapped[Role] = mapped_column(text_enum(Role, "role"))
    hash: Mapped[str] = mapped_column(unique=True)
    hint: Mapped[str]  # its last four characters, to tell keys apart
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class WebSession(Base):
    """A login in a browser: the cookie's SHA-256."""

    __tablename__ = "web_sessions"

    hash: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), index=True)
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class AuditEntry(Base):
    """Who did what to keys and studies, and which worker came too late; only ever appended to."""

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    actor: Mapped[str | None]
    action: Mapped[str]
    target: Mapped[str]
    detail: Mapped[Json]
    request_id: Mapped[str | None]
    time: Mapped[datetime] = mapped_column(server_default=func.now())


class IdempotencyKey(Base):
    """The first answer to a POST with an Idempotency-Key, its body sealed (``app.idempotency``)."""

    __tablename__ = "idempotency_keys"

    key_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[str]
    status: Mapped[int]
    headers: Mapped[Json]
    body: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
