"""Requests in YAML or JSON files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from deft_client.errors import DeftClientError


def read_spec(path: Path) -> dict[str, Any]:
    """The fields that a file holds.

    Raises:
        DeftClientError: it is neither YAML nor JSON, or holds no fields.
    """
    loaded = _read(path)
    if not isinstance(loaded, dict):
        raise DeftClientError(f"{path} holds {type(loaded).__name__}, not the fields of a request")
    return loaded


def read_list(path: Path) -> list[Any]:
    """The entries that a file holds.

    Raises:
        DeftClientError: it is neither YAML nor JSON, or holds no list.
    """
    loaded = _read(path)
    if not isinstance(loaded, list):
        raise DeftClientError(f"{path} holds {type(loaded).__name__}, not a list")
    return loaded


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DeftClientError(f"{path} is neither YAML nor JSON: {error}") from error
