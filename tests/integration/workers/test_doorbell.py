from __future__ import annotations

import pytest
import redis

from app.queue import get_celery, ring, waiting_messages
from app.settings import get_settings


def test_messages_are_counted_by_queue(service: redis.Redis) -> None:
    ring("run_1", "gpu")
    ring("run_2", "gpu")
    assert (waiting_messages("gpu"), waiting_messages("cpu")) == (2, 0)


def test_a_broker_that_is_away_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFT_REDIS_URL", "redis://127.0.0.1:1/0")
    get_settings.cache_clear()
    get_celery.cache_clear()
    ring("run_1", "cpu")
    assert waiting_messages("cpu") is None
