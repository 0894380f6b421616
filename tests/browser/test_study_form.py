"""Researchers in Chromium: a study planned and made on the first page, with all that it can ask for."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import FilePayload, Page, expect

from tests.browser.test_rating_page import violations
from tests.browser.test_study_page import log_in
from tests.browser.watched import Watched
from tests.study_world import Service, evaluated_job, rows

pytestmark = pytest.mark.browser

GOLD = [{"prompt": f"Which is {n}?", "better": str(n), "worse": str(n + 1)} for n in range(5)]


def jsonl(lines: list[str]) -> FilePayload:
    return {"name": "gold.jsonl", "mimeType": "application/jsonl", "buffer": "\n".join(lines).encode()}


def open_form(browser: Watched, service: Service, address: str) -> Page:
    """The form of the first page, with a name and two jobs."""
    for side in "ab":
        evaluated_job(rows({"x": 30}, f"system-{side}"), name=f"method {side}")
    log_in(browser, service, address)
    page = browser.open(f"{address}/")
    page.locator("#studies summary").click()
    page.locator("#study-name").fill("duel")
    page.locator("#study-a").select_option(label="method a")
    page.locator("#study-b").select_option(label="method b")
    return page


def test_a_study_is_planned_and_made_on_the_first_page(
    service: Service, address: str, browse: Callable[..., Watched]
) -> None:
    page = open_form(browse(), service, address)
    page.locator("#study-results").select_option("after_unblinding")
    page.locator("#interim-looks").fill("2")
    page.get_by_role("button", name="What could it see?").click()
    expect(page.locator("#study-plan")).to_contain_text("30 pairs show a win rate of")
    page.locator("#protocol").select_option("rigorous")
    page.locator("#study-form").get_by_role("button", name="Create").click()
    expect(page.locator("#study-error")).to_contain_text("raters_per_pair 1")
    page.locator("#raters-per-pair").fill("1")
    page.locator("#study-form").get_by_role("button", name="Create").click()
    page.wait_for_url("**/studies/stu_*/view")
    expect(page.get_by_role("region", name="Planned looks as a table").get_by_role("row")).to_have_count(4)


def test_checks_rules_and_looks_are_asked_for_in_the_form(
    service: Service, address: str, browse: Callable[..., Watched]
) -> None:
    browser = browse()
    page = open_form(browser, service, address)
    expect(page.get_by_label("Gold: pairs with a known answer")).to_be_hidden()  # of the paper's protocol
    page.locator("#protocol").select_option("rigorous")
    typed = {
        "Annotators of each pair": "1",
        "Pairs given a second time": "10",
        "Hidden gold pairs": "20",
        "Gold pairs that come first": "2",
        "Right on fewer gold pairs": "60",
        "Alike on fewer repeated pairs": "50",
        "Faster than": "2.5",
        "Share of the left side": "30",
        "Planned looks": "2",
    }
    for label, value in typed.items():
        page.get_by_label(label).fill(value)
    page.get_by_label("Results are read").select_option("after_unblinding")
    page.get_by_label("How the looks share the 5%").select_option("pocock")
    gold, create = page.get_by_label("Gold: pairs"), page.locator("#study-form").get_by_text("Create")
    gold.set_input_files(jsonl([json.dumps(GOLD[0]), "{'no JSON'}"]))
    create.click()
    expect(page.locator("#study-error")).to_contain_text("Gold, line 2 is not JSON")
    assert browser.console == []
    gold.set_input_files(jsonl([*map(json.dumps, GOLD), ""]))
    create.click()
    page.wait_for_url("**/studies/stu_*/view")
    made = service.http.get(f"/studies/{page.url.split('/')[-2]}", headers=service.researcher).json()
    assert made["exclusion"] == {
        "min_gold_accuracy": 0.6,
        "min_repeat_consistency": 0.5,
        "min_seconds": 2.5,
        "max_left_rate_deviation": 0.3,
    }
    asked = {
        "protocol": "rigorous",
        "raters_per_pair": 1,
        "repeats": 0.1,
        "gold": 3,
        "gold_share": 0.2,
        "tutorial": 2,
        "results": "after_unblinding",
        "interim_looks": 2,
        "boundary": "pocock",
    }
    assert {name: made[name] for name in asked} == asked
    assert browser.console == []


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_form(
    service: Service, address: str, browse: Callable[..., Watched], width: int, scheme: str
) -> None:
    page = open_form(browse(viewport={"width": width, "height": 800}, color_scheme=scheme), service, address)
    found = {"paper": violations(page)}
    page.locator("#protocol").select_option("rigorous")
    found["rigorous"] = violations(page)
    assert found == {"paper": [], "rigorous": []}
    assert page.evaluate("document.documentElement.scrollWidth") <= width
