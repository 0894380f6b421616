"""A service on a fresh database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.db.models import Role
from app.main import create_app
from tests.study_world import Service, api_key


@pytest.fixture
def service(service_settings: None) -> Iterator[Service]:
    with TestClient(create_app()) as http:
        researcher = {"Authorization": f"Bearer {api_key(Role.RESEARCHER)}"}
        viewer = {"Authorization": f"Bearer {api_key(Role.VIEWER)}"}
        yield Service(http, researcher, viewer)
