"""The API on a fresh database, without workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.db.models import Role
from app.main import create_app
from tests.api_world import Api, headers_for


@pytest.fixture
def api(service_settings: None) -> Iterator[Api]:
    with TestClient(create_app(), raise_server_exceptions=False) as http:
        yield Api(http, headers_for(Role.RESEARCHER), headers_for(Role.VIEWER), headers_for(Role.ADMIN))
