"""A browser with an eye on its console, its dialogs and the hosts that it asks."""

from __future__ import annotations

from dataclasses import dataclass, field

from playwright.sync_api import BrowserContext, Page


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
