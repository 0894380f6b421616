"""Chromium, with an eye on its console, its dialogs and the hosts that it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)


@dataclass(frozen=True)
class Watched:
    """A browser context whose console and requests are kept; a dialog counts as a line of the console."""

    context: BrowserContext
    console: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    @property
    def hosts(self) -> set[str]:
        return {url.split("/")[2] for url in self.urls if not url.startswith(("data:", "blob:"))}

    def open(self, link: str) -> Page:
        page = self.context.new_page()
        page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.console.append(f"uncaught: {error}"))
        page.on("dialog", lambda dialog: (self.console.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.urls.append(request.url))
        page.goto(link)
        return page


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
