"""Studies: the frozen pairs, who rates them, and the votes."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, UniqueConstraint, false, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db.models.base import Base, text_enum


class Choice(StrEnum):
    LEFT = "left"
    TIE = "tie"
    RIGHT = "right"


class Study(Base):
    """A blind comparison of two jobs' generations on the same prompts."""

    __tablename__ = "studies"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    a_job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    b_job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    per_subset: Mapped[int]
    protocol: Mapped[str]
    criteria: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    manifest_sha256: Mapped[str]  # of the frozen sample
    unblinded_at: Mapped[datetime | None]
    created_by: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class StudyItem(Base):
    """A frozen pair: one prompt and both systems' responses."""

    __tablename__ = "study_items"
    __table_args__ = (UniqueConstraint("study_id", "sample_id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), index=True)
    sample_id: Mapped[str]
    subset: Mapped[str]
    position: Mapped[int]
    prompt: Mapped[list[Any]]
    response_a: Mapped[str]
    response_b: Mapped[str]


class Annotator(Base):
    """A rater of one study: the subsets they rate, their key and their personal link's SHA-256."""

    __tablename__ = "annotators"

    id: Mapped[str] = mapped_column(primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), index=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"), unique=True)
    link_hash: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    subsets: Mapped[list[Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Assignment(Base):
    """A pair given to a rater, with the side on which each system stands."""

    __tablename__ = "assignments"
    __table_args__ = (UniqueConstraint("annotator_id", "item_id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    annotator_id: Mapped[str] = mapped_column(ForeignKey("annotators.id", ondelete="CASCADE"))
    item_id: Mapped[str] = mapped_column(ForeignKey("study_items.id", ondelete="CASCADE"), index=True)
    a_is_left: Mapped[bool]
    lease_until: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    item: Mapped[StudyItem] = relationship()


class Vote(Base):
    """A rater's choice; an undone vote stays, marked."""

    __tablename__ = "votes"
    __table_args__ = (
        Index(
            "uq_votes_standing",
            "assignment_id",
            unique=True,
            postgresql_where=text("undone_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    assignment_id: Mapped[str] = mapped_column(ForeignKey("assignments.id", ondelete="CASCADE"), index=True)
    choice: Mapped[Choice] = mapped_column(text_enum(Choice, "choice"))
    comment: Mapped[str | None]
    harmful: Mapped[bool] = mapped_column(server_default=false())  # the rater's flag on the pair
    seconds: Mapped[float | None]  # the pair was on the rater's screen, as their browser tells
    late: Mapped[bool]  # submitted after the lease
    undone_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Skip(Base):
    """A rater's refusal to judge a pair, with the reason; one that was taken back stays, marked."""

    __tablename__ = "skips"
    __table_args__ = (
        Index(
            "uq_skips_standing",
            "assignment_id",
            unique=True,
            postgresql_where=text("undone_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    assignment_id: Mapped[str] = mapped_column(ForeignKey("assignments.id", ondelete="CASCADE"), index=True)
    reason: Mapped[str]
    harmful: Mapped[bool]
    undone_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
