"""The quickstart's requests: every body is valid, every address exists."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.api.annotators import NewAnnotator
from app.api.studies import NewStudy
from app.main import create_app
from deft_engine.specs import job_spec_adapter
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
POSTS = re.findall(r"^post (\S+) '(\{.*?\})'$", PAGE, re.M | re.S)
PATHS = set(re.findall(r"\$DEFT(/[^\s\"?`]+)", PAGE)) | {path for path, _ in POSTS}


def body(text: str) -> Any:
    return json.loads(re.sub(r"'\$(\w+)'", r"\1", text))


def test_the_page_has_requests() -> None:
    assert [path for path, _ in POSTS] == [*["/jobs"] * 3, "/studies", "/studies/$STUDY/annotators"]


@pytest.mark.parametrize("text", [text for path, text in POSTS if path == "/jobs"])
def test_job_bodies_are_valid(text: str) -> None:
    job_spec_adapter.validate_python(body(text))


def test_study_bodies_are_valid() -> None:
    bodies = [body(text) for path, text in POSTS if path.startswith("/studies")]
    NewStudy.model_validate(bodies[0])
    NewAnnotator.model_validate(bodies[1])


def test_addresses_exist() -> None:
    client = TestClient(create_app(), follow_redirects=False)  # without a key: 401 or the login page
    missing = {path for path in PATHS if client.get(path).status_code == 404}
    assert len(PATHS) > 8
    assert missing == set()
