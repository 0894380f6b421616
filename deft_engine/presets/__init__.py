"""Presets: YAML files of job fields, which fill what a request does not give."""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@cache
def preset_names() -> tuple[str, ...]:
    """Every preset that ships with DEFT, sorted."""
    return tuple(
        sorted(f.name.removesuffix(".yaml") for f in files(__name__).iterdir() if f.name.endswith(".yaml"))
    )


def load_preset(name: str) -> dict[str, Any]:
    """The preset's fields.

    Raises:
        ValueError: no such preset; the message lists the names.
    """
    if name not in preset_names():
        raise ValueError(f"preset {name!r} is unknown; the presets are {', '.join(preset_names())}")
    loaded = yaml.safe_load((files(__name__) / f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def fill_from_preset(given: dict[str, Any], fields: Container[str]) -> dict[str, Any]:
    """``given`` over those preset fields that the kind of job has; what is given, null included, wins.

    A preset that does not exist fills nothing; the field ``preset`` refuses its name.
    """
    name = given.get("preset")
    if name not in preset_names():
        return given
    preset = {key: value for key, value in load_preset(name).items() if key in fields}
    return merge_fields(preset, given)


def merge_fields(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` over ``below``, objects field by field; null and another variant of a union replace."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(value, dict) and isinstance(under, dict) and same_variant(value, under):
            merged[key] = merge_fields(under, value)
        else:
            merged[key] = value
    return merged


def same_variant(above: Mapping[str, Any], below: Mapping[str, Any]) -> bool:
    """Whether two values are the same member of a union told apart by ``name`` (a method, a grader)."""
    return bool(above.get("name", below.get("name")) == below.get("name"))
