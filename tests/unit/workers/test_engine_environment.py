from __future__ import annotations

import os

import pytest

from workers.engine import service_engine_environment


def test_the_engine_sees_limits_but_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEFT_DATABASE_URL", "DEFT_REDIS_URL", "DEFT_HOME", "PGPASSWORD", "CELERY_BROKER_URL"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("DEFT_MAX_LINE_BYTES", "7")
    seen = service_engine_environment()
    assert "secret" not in seen.values()
    assert seen["DEFT_MAX_LINE_BYTES"] == "7"
    assert seen["PATH"] == os.environ["PATH"]


def test_a_launcher_around_the_service_does_not_reach_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    seen = service_engine_environment()
    assert not {"RANK", "WORLD_SIZE"} & seen.keys()
    assert seen["CUDA_VISIBLE_DEVICES"] == "3"
