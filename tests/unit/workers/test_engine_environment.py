from __future__ import annotations

import os

import pytest

from workers.engine import engine_environment


def test_the_engine_sees_limits_but_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEFT_DATABASE_URL", "DEFT_REDIS_URL", "DEFT_HOME", "PGPASSWORD", "CELERY_BROKER_URL"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("DEFT_MAX_LINE_BYTES", "7")
    seen = engine_environment()
    assert "secret" not in seen.values()
    assert seen["DEFT_MAX_LINE_BYTES"] == "7"
    assert seen["PATH"] == os.environ["PATH"]
