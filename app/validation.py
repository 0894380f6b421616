"""From pydantic's errors to faults that name a place in the request by a JSON pointer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def field_errors(found: Iterable[Mapping[str, Any]], body: Any) -> list[dict[str, str]]:
    """``pointer``, ``code`` and ``detail`` of each of pydantic's errors, in their order, each once.

    ``pointer`` is a JSON pointer into the body, or the name of a query parameter or header.

    Args:
        found: ``ValidationError.errors()``; each ``loc`` starts with its source (body, query ...).
        body: the parsed body, which tells a path from the union tags that pydantic mixes into it.
    """
    faults: list[dict[str, str]] = []
    for error in found:
        anchor, *path = error["loc"] or ("body",)
        pointer = _pointer(path, body, error) if anchor == "body" else "/".join(map(str, path))
        fault = {"pointer": pointer, "code": str(error["type"]), "detail": _detail(error)}
        if fault not in faults:
            faults.append(fault)
    return faults


def _pointer(path: list[Any], body: Any, error: Mapping[str, Any]) -> str:
    """The path without union tags: what is no key of the value is a tag, unless it names what is missing."""
    names: list[str] = []
    value = body
    for position, part in enumerate(path):
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            if not (error["type"] == "missing" and position == len(path) - 1):
                continue
        names.append(str(part))
    if error["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        names.append(str(error["ctx"]["discriminator"]).strip("'"))
    return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in names)


_DETAILS = {
    "union_tag_invalid": "{tag!r} is unknown; choose one of {expected_tags}",
    "union_tag_not_found": "{discriminator} is missing; it says which kind this is",
    "extra_forbidden": "there is no such field; check its spelling or leave it out",
    "missing": "is missing; give it a value",
    "model_attributes_type": "must be a JSON object, sent with Content-Type: application/json",
    "model_type": "must be a JSON object",
    "value_error": "{error}",
}


def _detail(error: Mapping[str, Any]) -> str:
    """pydantic's message, or one of ours that says what to do."""
    template = _DETAILS.get(error["type"])
    return template.format(**error.get("ctx", {})) if template else str(error["msg"])
