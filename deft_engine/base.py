"""The shape all specs share: strict, frozen pydantic models whose JSON form is stable."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints


class Spec(BaseModel):
    """Unknown fields, NaN and infinities are errors; instances do not change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("contains a NUL character; remove it")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("contains half of a surrogate pair (\\ud800 to \\udfff); send whole characters")
    return text


Text = Annotated[str, AfterValidator(_storable)]
"""A string that a database can hold (no NUL, no lone surrogate)."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_storable)]
"""A name for people: 1 to 200 characters."""

ModelName = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_storable)]
"""``tiny``, a local path, a hub id such as ``org/name``, or ``job:<id>``."""

DatasetName = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_storable)]
"""A dataset's id in the service; for ``deft run`` a file's path, of any length that the system allows."""
