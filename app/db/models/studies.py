"""Studies: the frozen pairs, who rates them, and the votes."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, UniqueConstraint, false, func, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db.models.base import Base, Json, text_enum


class Choice(StrEnum):
    LEFT = "left"
    TIE = "tie"
    RIGHT = "right"


class ItemKind(StrEnum):
    PAIR = "pair"  # two systems' answers to a prompt
    GOLD = "gold"  # an answer known to be better, and a worse one
    TUTORIAL = "tutorial"  # as gold, shown first


class Purpose(StrEnum):
    """Why a pair is given to a rater; only votes on a ``PAIR`` count."""

    PAIR = "pair"
    REPEAT = "repeat"  # a pair that the same rater has judged before
    GOLD = "gold"
    TUTORIAL = "tutorial"


class Standing(StrEnum):
    """Where an assignment stands; ``OPEN`` and ``VOTED`` hold one of the places of their pair."""

    OPEN = "open"  # dealt, and no vote stands
    VOTED = "voted"
    SKIPPED = "skipped"  # the rater would not judge it
    RELEASED = "released"  # the lease ran out, or the rater left or was removed, and the place is free again


class Study(Base):
    """A blind comparison of systems' generations on the same prompts."""

    __tablename__ = "studies"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    per_subset: Mapped[int]
    pairs_per_prompt: Mapped[int]  # pairs of systems that each prompt is judged on
    protocol: Mapped[str]
    raters_per_pair: Mapped[int | None]  # None: every rater of the subset
    repeats: Mapped[float]  # share of a rater's pairs that come a second time
    gold: Mapped[int]  # hidden pairs with a known answer
    gold_share: Mapped[float]  # gold pairs for each of a rater's pairs
    tutorial: Mapped[int]  # pairs shown first
    criteria: Mapped[str]
    texts: Mapped[str] = mapped_column(server_default="plain")  # or "markdown": how raters see them
    exclusion: Mapped[Json] = mapped_column(server_default="{}")  # rules for raters, by name
    results: Mapped[str] = mapped_column(server_default="open")  # or "after_unblinding": when they are read
    interim_looks: Mapped[int] = mapped_column(server_default="0")
    boundary: Mapped[str] = mapped_column(server_default="obrien_fleming")  # of the looks' alphas
    seed: Mapped[int] = mapped_column(BigInteger)
    manifest_sha256: Mapped[str]  # of the frozen sample, schedule, gold and design
    unblinded_at: Mapped[datetime | None]
    created_by: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class StudySystem(Base):
    """A system of a study; ``position`` 0 is a and 1 is b where there are two."""

    __tablename__ = "study_systems"

    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))


class StudyLook(Base):
    """A planned interim look that was taken: what it found of system a against b."""

    __tablename__ = "study_looks"

    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # from 1
    wins: Mapped[int]
    ties: Mapped[int]
    losses: Mapped[int]
    p_value: Mapped[float | None]  # of the sign test; None where nothing is decided
    alpha: Mapped[float]  # below which the look's p-value ends the study
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class StudyVerdict(Base):
    """What a judge that is a model says of a pair, in both orders: ``a``, ``tie`` or ``b``."""

    __tablename__ = "study_verdicts"

    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    judge: Mapped[str] = mapped_column(primary_key=True)
    item_id: Mapped[str] = mapped_column(ForeignKey("study_items.id", ondelete="CASCADE"), primary_key=True)
    a_first: Mapped[str]
    b_first: Mapped[str]


class StudyItem(Base):
    """A frozen pair: one prompt and the responses of two systems, or of gold the better and the worse."""

    __tablename__ = "study_items"
    __table_args__ = (UniqueConstraint("study_id", "kind", "sample_id", "system_a", "system_b"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), index=True)
    kind: Mapped[ItemKind] = mapped_column(text_enum(ItemKind, "kind"))
    sample_id: Mapped[str]
    subset: Mapped[str]  # of gold and tutorial: the kind
    position: Mapped[int]
    system_a: Mapped[int]  # position of the system that wrote response_a; of gold 0, the better answer
    system_b: Mapped[int]
    prompt: Mapped[list[Any]]
    response_a: Mapped[str]
    response_b: Mapped[str]


class StudyPlace(Base):
    """How many raters hold a pair: apart from its wide row, since every deal counts the free ones."""

    __tablename__ = "study_places"
    __table_args__ = (Index(None, "study_id", "subset"),)

    item_id: Mapped[str] = mapped_column(ForeignKey("study_items.id", ondelete="CASCADE"), primary_key=True)
    study_id: Mapped[str]
    subset: Mapped[str]
    held: Mapped[int]


class Annotator(Base):
    """A rater of one study: the subsets they rate, their key and their personal link's SHA-256."""

    __tablename__ = "annotators"

    id: Mapped[str] = mapped_column(primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), index=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"), unique=True)
    link_hash: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    subsets: Mapped[list[Any]]
    excluded_at: Mapped[datetime | None]  # removed, and no vote of theirs counts
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Assignment(Base):
    """A pair given to a rater, with the side on which each system stands."""

    __tablename__ = "assignments"
    __table_args__ = (
        UniqueConstraint("annotator_id", "item_id", "purpose"),
        Index(
            "ix_assignments_open",
            "annotator_id",
            postgresql_where=text("standing = 'open'"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    annotator_id: Mapped[str] = mapped_column(ForeignKey("annotators.id", ondelete="CASCADE"))
    item_id: Mapped[str] = mapped_column(ForeignKey("study_items.id", ondelete="CASCADE"), index=True)
    purpose: Mapped[Purpose] = mapped_column(text_enum(Purpose, "purpose"))
    standing: Mapped[Standing] = mapped_column(text_enum(Standing, "standing"))
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
