"""Where the service's log goes, and what may not depend on it."""

from __future__ import annotations

import errno
import io
import json
import sys
from collections.abc import Iterator

import pytest
import structlog

from app.logging import configure_logging


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_a_line_that_cannot_be_written_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logging(as_json=True)
    monkeypatch.setattr(sys, "stderr", FullDisk())
    structlog.get_logger().info("request", path="/jobs")

    monkeypatch.setattr(sys, "stderr", written := io.StringIO())
    structlog.get_logger().info("request", path="/datasets")
    assert json.loads(written.getvalue())["path"] == "/datasets"
