"""What tests read off the rater's page."""

from __future__ import annotations

from playwright.sync_api import Page, expect


def expect_rated(page: Page, done: int, total: int) -> None:
    """So many are rated, and the next pair can be."""
    text = f"{done} of {total} rated" if done < total else "All pairs rated"
    expect(page.locator("#count")).to_have_text(text)
    if done < total:
        expect(page.locator("[data-choice=tie]")).to_be_enabled()


def wait_until_held(page: Page, pairs: int = 5) -> None:
    """Until the page holds so many pairs, the one on the screen included."""
    expect(page.locator("#rating")).to_have_attribute("data-held", str(pairs), timeout=30_000)


def author(page: Page, side: str) -> str:
    """Which system wrote the answer on a side, told by the text on the screen alone."""
    return page.locator(f"#{side}").inner_text().split()[0].removeprefix("system-")


def question(page: Page) -> str:
    """What the rater is asked to compare answers to: the first turn, folded or not."""
    return page.locator(".said").first.text_content() or ""
