"""A service without its API: a database, a broker of its own, a home, and short leases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from app.queue import get_celery
from app.settings import get_settings
from tests.worker_world import QUICK, descendants_of_workers, until, upload


@pytest.fixture(autouse=True)
def service(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, redis_url: str
) -> Iterator[redis.Redis]:
    """The broker; afterwards no engine or supervisor is left."""
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    request.getfixturevalue("service_settings")
    with redis.Redis.from_url(redis_url) as broker:
        broker.flushdb()
        yield broker
        until(lambda: not descendants_of_workers(), patience=20)
        broker.flushdb()
    get_celery().close()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """What the workers print; shown where a test fails."""
    path = tmp_path / "workers.log"
    yield path
    print(path.read_text() if path.exists() else "")


@pytest.fixture
def digest(tmp_path: Path) -> str:
    """An upload of 48 pairs."""
    assert get_settings().home.is_relative_to(tmp_path)
    return upload(tmp_path)
