from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.db.claims import ClaimedInput
from app.settings import Settings
from deft_engine.data.hub_dataset import HubDataset
from deft_engine.endpoints.spec import EndpointSpec
from workers.engine import endpoint_environment, service_engine_environment


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


def test_a_stage_that_asks_an_endpoint_gets_the_key_that_it_names_and_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEFT_ENDPOINT_KEY_ONE", "first")
    monkeypatch.setenv("DEFT_ENDPOINT_KEY_TWO", "second")
    settings = Settings(home=tmp_path, endpoint_hosts="api.example.com")
    spec = EndpointSpec(url="https://api.example.com/v1", model="m", api_key_env="DEFT_ENDPOINT_KEY_TWO")
    endpoint = ClaimedInput("endpoint", spec.identity, spec.uri, None, {})
    upload = ClaimedInput("samples", "id", None, "samples.parquet", {})
    assert endpoint_environment([upload, endpoint], settings) == {
        "DEFT_ENDPOINT_HOSTS": "api.example.com",
        "DEFT_ENDPOINT_CACHE": str(tmp_path / "endpoint-cache"),
        "DEFT_ENDPOINT_KEY_TWO": "second",
    }
    assert endpoint_environment([upload], settings) == {}
    uri = HubDataset(hub="org/set", split="train").uri
    hub = ClaimedInput("upload", uri, uri, None, {})
    assert endpoint_environment([hub], settings) == {"DEFT_ENDPOINT_HOSTS": "api.example.com"}
    assert not {"first", "second"} & set(service_engine_environment().values())
