"""Chromium for the tests of pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from app.db.models import Role
from app.main import create_app
from tests.browser.watched import Watched
from tests.serving import serving
from tests.study_world import Service, api_key

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)


@pytest.fixture(scope="module")  # not longer: while Playwright runs, no other test can run an event loop
def chromium() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}; install Debian's chromium to run this test")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium: Browser) -> Iterator[Callable[..., Watched]]:
    """Makes a fresh context, with options such as ``viewport``; all are closed after the test."""
    contexts: list[BrowserContext] = []

    def new(**options: object) -> Watched:
        context = chromium.new_context(**options)  # type: ignore[arg-type]
        context.set_default_timeout(15_000)
        contexts.append(context)
        return Watched(context)

    yield new
    for context in contexts:
        context.close()


@pytest.fixture
def address(service_settings: None) -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def service(address: str) -> Iterator[Service]:
    """A client of the same database as the served app; links it makes are turned to the served address."""
    with TestClient(create_app(), base_url=address) as http:
        keys = [{"Authorization": f"Bearer {api_key(role)}"} for role in (Role.RESEARCHER, Role.VIEWER)]
        yield Service(http, *keys)
