"""Researchers in Chromium: inviting, renewing, revoking, reading bars and closing a study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from app.auth import find_usable_key, start_web_session
from app.cookies import SESSION_COOKIE
from app.db.session import transaction
from tests.browser.rating import author, expect_rated
from tests.browser.watched import Watched
from tests.study_world import Service

pytestmark = pytest.mark.browser


def log_in(browser: Watched, service: Service, address: str) -> None:
    with transaction() as session:
        key = find_usable_key(session, service.researcher["Authorization"].removeprefix("Bearer "))
        assert key is not None
        cookie = start_web_session(session, key)
    browser.context.add_cookies([{"name": SESSION_COOKIE, "value": cookie, "url": address}])


def test_a_researcher_invites_and_reads_bars(
    service: Service, address: str, browse: Callable[..., Watched]
) -> None:
    study = service.study({"harmless-base": 2, "helpful-base": 3})
    browser = browse()
    page = browser.open(f"{address}/studies/{study['id']}/view")
    assert "/login" in page.url
    browser.console.clear()
    log_in(browser, service, address)
    page.goto(f"{address}/studies/{study['id']}/view")
    page.get_by_role("button", name="Make a personal link").click()  # neither name nor subsets given
    assert page.locator("#invited").is_hidden()
    page.get_by_label("Name", exact=True).fill("Ada")
    page.get_by_label("harmless-base").check()
    page.get_by_role("button", name="Make a personal link").click()
    expect(page.locator("#invited-link")).to_contain_text("/annotate/")
    link = page.locator("#invited-link").inner_text()
    rater = browse().open(link)
    expect_rated(rater, 0, 2)
    winners = Counter([author(rater, "left")])
    rater.keyboard.press("1")
    expect_rated(rater, 1, 2)
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_role("region", name="Annotators as a table")).to_contain_text("1 of 2")
    table = page.get_by_role("region", name="Results as a table")
    total = table.get_by_role("row", name="total").first.get_by_role("cell").all_inner_texts()
    assert total[0] == "1"
    assert total[1].startswith(f"{winners['a']} ")
    assert page.locator("svg.bar rect").count() == 5 + 3  # five bars, and one part in each of three
    assert page.get_by_label("harmless-base").count() == 0  # taken
    assert browser.console == []


def test_a_researcher_renews_revokes_and_closes_by_keys(
    service: Service, address: str, browse: Callable[..., Watched]
) -> None:
    study = service.study({"harmless-base": 2})
    rater = service.rater(study)
    browser = browse()
    log_in(browser, service, address)
    rating = browser.open(rater.link)  # in the researcher's own browser
    expect_rated(rating, 0, 2)
    page = browser.open(f"{address}/studies/{study['id']}/view")
    question = page.get_by_role("dialog")
    yes = page.locator("#question-yes")

    page.get_by_role("button", name="New link for Ada").press("Enter")
    expect(question).to_contain_text("stop at once")
    page.keyboard.press("Escape")
    expect(question).to_be_hidden()
    expect(page.get_by_role("button", name="New link for Ada")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(yes).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#invited-link")).to_contain_text("/annotate/")
    assert page.locator("#invited-link").inner_text() != rater.link
    rating.goto(page.locator("#invited-link").inner_text())
    expect_rated(rating, 0, 2)
    with page.expect_event("load"):
        page.get_by_role("button", name="Done").press("Enter")

    page.get_by_role("button", name="Revoke Ada").press("Enter")
    expect(question).to_contain_text("Votes stay")
    page.keyboard.press("Tab")
    expect(yes).to_be_focused()
    with page.expect_event("load"):
        page.keyboard.press("Enter")
    expect(page.get_by_role("cell", name="revoked")).to_be_visible()

    page.get_by_role("button", name="Unblind and close").press("Enter")
    expect(question).to_contain_text("It cannot be taken back")
    page.keyboard.press("Enter")  # Cancel has the focus
    expect(question).to_be_hidden()
    expect(page.get_by_text("open", exact=True)).to_be_visible()
    page.get_by_role("button", name="Unblind and close").press("Enter")
    page.keyboard.press("Tab")
    expect(yes).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("closed by unblinding")).to_be_visible()
    assert page.get_by_role("button", name="Unblind and close").count() == 0
    assert browser.console == []
