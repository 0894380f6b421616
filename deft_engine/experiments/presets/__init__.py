"""Presets of experiments: YAML files with the arms of the paper's tables and of its open questions."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from deft_engine.presets import merge_fields


@cache
def experiment_preset_names() -> tuple[str, ...]:
    """Every preset of an experiment that ships with DEFT, sorted."""
    return tuple(
        sorted(f.name.removesuffix(".yaml") for f in files(__name__).iterdir() if f.name.endswith(".yaml"))
    )


def load_experiment_preset(name: str) -> dict[str, Any]:
    """The preset's fields.

    Raises:
        ValueError: no such preset; the message lists the names.
    """
    if name not in experiment_preset_names():
        known = ", ".join(experiment_preset_names())
        raise ValueError(f"preset {name!r} is unknown; the presets of experiments are {known}")
    loaded = yaml.safe_load((files(__name__) / f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def fill_from_experiment_preset(given: dict[str, Any]) -> dict[str, Any]:
    """``given`` over the preset that it names. Arms that are given come first, so that a fault's place is
    that in the request; one with the name of a preset's arm is laid over it.

    What cannot be an experiment is left as it is, for the fields to refuse.
    """
    name, arms = given.get("preset"), given.get("arms", [])
    if name not in experiment_preset_names() or not _all_named(arms):
        return given
    preset = load_experiment_preset(name)
    own = {arm["name"]: arm for arm in preset["arms"]}
    laid = [merge_fields(own.get(arm["name"], {}), arm) for arm in arms]
    rest = [arm for arm in preset["arms"] if all(arm["name"] != each["name"] for each in arms)]
    return {**merge_fields(preset, given), "arms": [*laid, *rest]}


def _all_named(arms: Any) -> bool:
    return isinstance(arms, list | tuple) and all(
        isinstance(arm, dict) and isinstance(arm.get("name"), str) for arm in arms
    )
