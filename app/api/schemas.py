"""What answers share."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

Item = TypeVar("Item")


class Answer(BaseModel):
    """An answer's body, readable from a table's row."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)


class Page(Answer, Generic[Item]):
    """A page of a list; ask on with ``after`` = the last entry's id."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool
