"""A request of the API as a value: what is sent, and how its answer is read. Both clients send these."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from deft_client.models import Page

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request; ``headers`` hold its idempotency key, so that a retry is the same request."""

    method: str
    path: str
    parse: Callable[[Any], T]
    params: dict[str, Any] = field(default_factory=dict)
    json: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    file: Path | None = None
    on_bytes: Callable[[int], None] | None = None

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does what sending it once does."""
        return self.method in ("GET", "DELETE") or "Idempotency-Key" in self.headers


def reads(kind: Any) -> Callable[[Any], Any]:
    """An answer of this type."""
    return TypeAdapter(kind).validate_python


def reads_page(kind: Any) -> Callable[[Any], Any]:
    """A page of such entries."""
    return Page[kind].model_validate


def reads_nothing(_: Any) -> None:
    """An answer in which nothing is looked for."""
    return None


def once(key: str | None = None) -> dict[str, str]:
    """The header that makes a repeated request the same one."""
    return {"Idempotency-Key": key or uuid.uuid4().hex}


def given(**values: Any) -> dict[str, Any]:
    """What is not None."""
    return {name: value for name, value in values.items() if value is not None}
