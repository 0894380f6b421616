"""The media types of artifacts."""

from __future__ import annotations

import pytest

from app.db.media_types import MEDIA_TYPES, media_type


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("samples.parquet", "application/vnd.apache.parquet"),
        ("ledger.jsonl", "application/jsonl"),
        ("model/README.md", "text/markdown"),
        ("model/model.safetensors", "application/octet-stream"),
        ("report.html", "text/html"),
        ("model/merges", "application/octet-stream"),
        ("model/page.py", "application/octet-stream"),
    ],
)
def test_media_types(name: str, expected: str) -> None:
    assert media_type(name) == expected
    assert expected in MEDIA_TYPES
