"""Which media type an artifact has, by its name."""

from __future__ import annotations

from pathlib import PurePosixPath

_OTHER = "application/octet-stream"
_BY_SUFFIX = {
    ".parquet": "application/vnd.apache.parquet",
    ".jsonl": "application/jsonl",
    ".json": "application/json",
    ".md": "text/markdown",
    ".html": "text/html",
    ".txt": "text/plain",
}

MEDIA_TYPES = sorted({_OTHER, *_BY_SUFFIX.values()})
"""Every one that there is."""


def media_type(name: str) -> str:
    """The media type of a file with this name; what is unknown is bytes."""
    return _BY_SUFFIX.get(PurePosixPath(name).suffix, _OTHER)
