"""Researchers in Chromium: hidden results, planned looks, exclusion, disagreement, data made of votes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.test_rating_page import violations
from tests.browser.test_study_page import log_in
from tests.browser.watched import Watched
from tests.study_world import Rater, Service

pytestmark = pytest.mark.browser

Json = dict[str, Any]


def vote_all(rater: Rater, system: str, seconds: float = 9.0, at_most: int = 1000) -> None:
    for _ in range(at_most):
        answer = rater.next()
        if answer.status_code != 200:
            return
        pair = answer.json()
        side = "left" if f"system-{system} says" in pair["left"] else "right"
        rater.vote(pair["id"], side, seconds=seconds)


def disputed(service: Service) -> Json:
    """A study in which Ada prefers a, Bob b in the one subset and a in the other, and Eve is too fast."""
    study = service.study(
        {"harmless-base": 4, "helpful-base": 8},
        protocol="rigorous",
        exclusion={"min_seconds": 2, "max_left_rate_deviation": 0.5},
    )
    vote_all(service.rater(study, "Ada"), "a")
    vote_all(service.rater(study, "Bob", ["harmless-base"]), "b")
    vote_all(service.rater(study, "Bea", ["helpful-base"]), "a")
    vote_all(service.rater(study, "Eve"), "b", seconds=1)
    return study


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_a_study_with_all_its_parts(
    service: Service, address: str, browse: Callable[..., Watched], width: int, scheme: str
) -> None:
    browser = browse(viewport={"width": width, "height": 800}, color_scheme=scheme)
    log_in(browser, service, address)
    study = disputed(service)
    verdict = {"judge": "acme/judge", "verdicts": [{"pair": 1, "a_first": "a", "b_first": "a"}]}
    service.http.post(f"/studies/{study['id']}/verdicts", json=verdict, headers=service.researcher)
    page = browser.open(f"{address}/studies/{study['id']}/view")
    expect(page.get_by_role("region", name="Judges as a table")).to_contain_text("acme/judge")
    page.locator("#differ summary").first.click()
    found = {"open study": violations(page)}
    hidden = service.study({"x": 4}, results="after_unblinding", interim_looks=1)
    vote_all(service.rater(hidden), "a", at_most=2)
    page.goto(f"{address}/studies/{hidden['id']}/view")
    found["hidden study"] = violations(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert found == {"open study": [], "hidden study": []}
    assert browser.console == []


def test_the_pairs_on_which_annotators_differ_are_read_by_subset(
    service: Service, address: str, browse: Callable[..., Watched]
) -> None:
    study = disputed(service)
    browser = browse()
    log_in(browser, service, address)
    page = browser.open(f"{address}/studies/{study['id']}/view")
    pairs = page.locator("#differ details")
    expect(pairs).to_have_count(10)  # of twelve
    page.get_by_role("button", name="More pairs").click()
    expect(pairs).to_have_count(12)
    expect(page.get_by_role("button", name="More pairs")).to_be_hidden()
    page.get_by_label("Subset", exact=True).select_option("harmless-base")
    expect(pairs).to_have_count(4)
    pairs.first.locator("summary").click()
    expect(pairs.first).to_contain_text("Ada: a is better")
    expect(pairs.first).to_contain_text("Bob: b is better")
    expect(pairs.first).to_contain_text("<script>alert(1)</script>")  # as text

    quality = page.get_by_role("region", name="Quality as a table")
    expect(quality.get_by_role("row", name="Eve")).to_contain_text("min seconds")
    before = page.get_by_role("region", name="Results as a table").get_by_role("row", name="total")
    after = page.get_by_role("region", name="Results after exclusion as a table").get_by_role(
        "row", name="total"
    )
    assert before.get_by_role("cell").first.inner_text() == "36"
    assert after.get_by_role("cell").first.inner_text() == "24"

    page.get_by_role("button", name="Make a dataset of the votes").click()
    page.wait_for_url("**/datasets/ds_*/view")
    assert browser.console == []


def test_hidden_results_show_bars_after_unblinding_and_looks_before(
    service: Service, address: str, browse: Callable[..., Watched]
) -> None:
    study = service.study({"x": 8}, results="after_unblinding", interim_looks=1)
    rater = service.rater(study)
    vote_all(rater, "a", at_most=3)
    browser = browse()
    log_in(browser, service, address)
    page = browser.open(f"{address}/studies/{study['id']}/view")
    expect(page.get_by_text("nobody reads who wins")).to_be_visible()
    assert page.locator("svg.bar").count() == 0
    assert page.get_by_role("link", name="All votes as CSV").count() == 0
    look = page.get_by_role("button", name="Take the next look")
    look.click()
    page.locator("#question-yes").click()
    expect(page.get_by_role("alert")).to_contain_text("due when 4 of 8 pairs have a vote")
    browser.console.clear()  # the browser notes the 409
    vote_all(rater, "a", at_most=1)
    look.click()
    with page.expect_event("load"):
        page.locator("#question-yes").click()
    taken = page.get_by_role("region", name="Planned looks as a table").get_by_role("row", name="1")
    expect(taken.first).to_contain_text("go on")
    expect(look).to_have_count(0)
    assert page.locator("svg.bar").count() == 0
    page.get_by_role("button", name="Unblind and close").click()
    expect(page.get_by_role("dialog")).to_contain_text("audit log")
    with page.expect_event("load"):
        page.locator("#question-yes").click()
    expect(page.get_by_text("closed by unblinding")).to_be_visible()
    assert page.locator("svg.bar").count() == 4  # three aspects and a subset
    expect(page.get_by_role("row", name="end")).to_contain_text("0.125")  # 4 of 4, two-sided
    assert browser.console == []
