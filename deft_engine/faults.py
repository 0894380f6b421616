"""From pydantic's errors to faults that name a place by a JSON pointer and say what to do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple


class Fault(NamedTuple):
    """What is wrong in a value, and where."""

    pointer: str  # JSON pointer, "" is the whole value
    code: str
    detail: str


def faults(errors: Iterable[Mapping[str, Any]], value: Any) -> list[Fault]:
    """Each of pydantic's errors (``ValidationError.errors()``) once, in their order.

    A list that is too short only because its entries are wrong is not told as well.

    Args:
        value: what was validated; it tells a path from the union tags that pydantic mixes into it.
    """
    found = (Fault(fault_pointer(e["loc"], value, e), str(e["type"]), fault_detail(e)) for e in errors)
    once = list(dict.fromkeys(found))
    pointers = [fault.pointer for fault in once]
    return [
        fault
        for fault in once
        if fault.code != "too_short" or not any(other.startswith(f"{fault.pointer}/") for other in pointers)
    ]


def fault_pointer(path: Sequence[Any], value: Any, error: Mapping[str, Any]) -> str:
    """The path without union tags: what is no key of the value is a tag, unless it names what is missing."""
    names: list[str] = []
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
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "value_error": "{error}",
    "too_short": "must have at least {min_length} entries, and has {actual_length}",
    "too_long": "must have at most {max_length} entries",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    **dict.fromkeys(("tuple_type", "list_type"), "must be a list"),
}
_EXPECTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "finite_number": "a finite number",
    "string_type": "a string",
    "literal_error": "{expected}",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}
"""What a single value must be; what it is, is told as well."""
_TEXT_LENGTHS = {
    "too_short": "must have at least {min_length} characters",
    "too_long": "must have at most {max_length} characters",
}
"""Of a string whose type has a check of its own: pydantic counts its "items" then."""


def fault_detail(error: Mapping[str, Any]) -> str:
    """What says what to do; pydantic's own message for what is rare."""
    given = error.get("input")
    texts = _TEXT_LENGTHS if isinstance(given, str) else {}
    template = texts.get(error["type"]) or _DETAILS.get(error["type"])
    if expected := _EXPECTED.get(error["type"]):
        template = f"must be {expected}{_told(given)}"
    return template.format(**error.get("ctx", {})) if template else str(error["msg"])


def _told(value: Any) -> str:
    """A number, null or truth value as JSON has it; nothing of a text, which may be a secret, or a list."""
    if not (value is None or isinstance(value, bool | int | float)):
        return ""
    return f", not {json.dumps(value):.40}"
