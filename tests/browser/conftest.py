"""Chromium for the tests of pages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from app.db.models import Role
from app.main import create_app
from tests.browser.watched import Watched
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


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self) -> None:
        super().__init__(
            uvicorn.Config(create_app(), port=0, log_level="warning", timeout_graceful_shutdown=2)
        )
        self.listening = threading.Event()

    async def startup(self, sockets: object = None) -> None:
        await super().startup()
        self.listening.set()


@pytest.fixture
def address(service_settings: None) -> Iterator[str]:
    server = _Server()
    thread = threading.Thread(target=server.run)
    thread.start()
    assert server.listening.wait(30), "the service did not start"
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def service(address: str) -> Iterator[Service]:
    """A client of the same database as the served app; links it makes are turned to the served address."""
    with TestClient(create_app(), base_url=address) as http:
        keys = [{"Authorization": f"Bearer {api_key(role)}"} for role in (Role.RESEARCHER, Role.VIEWER)]
        yield Service(http, *keys)
