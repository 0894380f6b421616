"""Doorbells are noted instead of sent: these tests look at rows, and need no broker."""

from __future__ import annotations

import pytest

from app.db import session


@pytest.fixture(autouse=True)
def rung(service_settings: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the stage runs whose doorbell was rung."""
    bells: list[str] = []
    monkeypatch.setattr(session, "ring", lambda stage_run_id, queue: bells.append(stage_run_id))
    return bells
