"""Raters and researchers in Chromium: a whole study by keys, a bad network, a phone, an invitation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from playwright.sync_api import expect
from scipy.stats import binomtest

from tests.browser.rating import author, expect_rated, question, wait_until_held
from tests.browser.watched import Watched
from tests.study_world import Service

pytestmark = pytest.mark.browser

COUNTS = {"harmless-base": 5, "helpful-base": 5, "helpful-online": 5, "helpful-rejection": 5}
KEYS = {"1": "left", "ArrowLeft": "left", "2": "tie", "ArrowDown": "tie", "3": "right", "ArrowRight": "right"}


def test_a_whole_study_by_keys(service: Service, address: str, browse: Callable[..., Watched]) -> None:
    study = service.study(COUNTS)
    rater = service.rater(study)
    browser = browse()
    page = browser.open(rater.link)
    votes: dict[str, tuple[str, str]] = {}  # question -> winner, side
    for done in range(20):
        expect_rated(page, done, 20)
        if done == 7:  # take the last vote back, and choose otherwise
            last = list(votes)[-1]
            page.keyboard.press("u")
            expect_rated(page, 6, 20)
            assert question(page) == last
            page.keyboard.press("2")
            votes[last] = ("tie", "tie")
            expect_rated(page, 7, 20)
        if done == 12:  # a reload goes on at the same pair, without the link
            before = page.locator("#left").inner_text()
            page.reload()
            assert page.url == f"{address}/annotate"
            expect_rated(page, 12, 20)
            assert page.locator("#left").inner_text() == before
        asked = question(page)
        key = list(KEYS)[done % 6]
        side = KEYS[key]
        votes[asked] = ("tie" if side == "tie" else author(page, side), side)
        page.keyboard.press(key)
    expect(page.locator("#finished")).to_contain_text("All your pairs are rated")
    assert len(votes) == 20

    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    for aspect in ("harmless", "helpful", "total", *COUNTS):
        part = found["subsets"][aspect] if aspect in COUNTS else found[aspect]
        prefix = "" if aspect == "total" else aspect
        winners = Counter(won for one, (won, _) in votes.items() if one.split()[-1].startswith(prefix))
        n = winners.total()
        assert part["n"] == n
        for name, who in (("win", "a"), ("tie", "tie"), ("lose", "b")):
            interval = binomtest(winners[who], n).proportion_ci(0.95, "wilson")
            assert part[name]["count"] == winners[who], (aspect, name)
            assert part[name]["interval"] == pytest.approx([interval.low, interval.high])
        decided = winners["a"] + winners["b"]
        assert part["sign_test"]["p_value"] == (
            pytest.approx(binomtest(winners["a"], decided).pvalue) if decided else None
        )
    lefts = sum(side == "left" for _, side in votes.values())
    assert found["total"]["left"]["count"] == lefts
    assert {name for name, count in found["exclusions"].items() if count} == {"undone"}
    assert found["exclusions"]["undone"] == 1
    assert browser.console == []
    assert browser.hosts == {address.removeprefix("http://")}


def test_texts_are_shown_as_they_are(service: Service, browse: Callable[..., Watched]) -> None:
    browser = browse()
    page = browser.open(service.rater(service.study({"x": 1})).link)
    expect_rated(page, 0, 1)
    left = page.locator("#left")
    assert "\n  Indented <script>alert(1)</script> line." in left.inner_text()
    assert page.locator("#left *, .said *").count() == 0
    assert page.locator(".said").last.inner_text() == "You know it.\n\nTell me <b>now</b>."
    assert page.locator(".role").all_text_contents() == ["Person", "Assistant", "Person"]
    assert left.evaluate("node => getComputedStyle(node).whiteSpace") == "pre-wrap"


LOCK = """() => new Promise((granted) => {
  const name = `rating-answer:${document.getElementById("rating").dataset.rater}:`;
  navigator.locks.request(name, () => new Promise((release) => { window.release = release; granted(); }));
})"""
# Until so many wait for a lock; `wait_for_function` would take the promise of an answer for a yes.
WAITING = """async (count) => {
  const waiting = async () => (await navigator.locks.query()).pending.length;
  while ((await waiting()) !== count) await new Promise((go) => setTimeout(go, 10));
}"""
# What one tab stores reaches another tab's copy a little later.
SEES_THE_ANSWER = "() => Object.keys(localStorage).some((key) => key.startsWith('rating-answer:'))"


def test_a_tab_counts_its_answer_that_another_tab_has_sent(
    service: Service, browse: Callable[..., Watched]
) -> None:
    browser = browse()
    link = service.rater(service.study({"x": 3})).link
    one, two = browser.open(link), browser.open(link)
    for page in (one, two):
        expect_rated(page, 0, 3)
        wait_until_held(page, 3)
    two.evaluate(LOCK)
    two.evaluate("() => window.dispatchEvent(new Event('online'))")  # it wants to send, first in the queue
    two.evaluate(WAITING, 1)
    one.keyboard.press("1")
    two.evaluate(WAITING, 2)
    two.wait_for_function(SEES_THE_ANSWER)
    two.evaluate("() => window.release()")
    expect_rated(one, 1, 3)
    expect_rated(two, 1, 3)


def test_two_tabs_cannot_vote_differently(service: Service, browse: Callable[..., Watched]) -> None:
    study = service.study({"x": 3})
    browser = browse()
    link = service.rater(study).link
    one, two = browser.open(link), browser.open(link)
    for page in (one, two):
        expect_rated(page, 0, 3)
    assert one.locator("#left").inner_text() == two.locator("#left").inner_text()
    one.keyboard.press("1")
    expect_rated(one, 1, 3)
    two.keyboard.press("3")
    expect(two.locator("#error")).to_contain_text("another choice was made for this pair")
    expect_rated(two, 1, 3)
    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    assert (found["total"]["n"], found["total"]["left"]["count"]) == (1, 1)


def test_buttons_comments_and_arrows_in_a_text(service: Service, browse: Callable[..., Watched]) -> None:
    study = service.study({"x": 3})
    page = browse().open(service.rater(study).link)
    expect_rated(page, 0, 3)
    page.locator("#commenting summary").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("both 1 and 3 are fine, u know")  # keys are letters here
    expect_rated(page, 0, 3)
    page.locator("[data-choice=tie]").focus()
    page.keyboard.press("Enter")
    expect_rated(page, 1, 3)
    assert page.locator("#comment").input_value() == ""
    left = page.locator("#left")
    left.evaluate(
        """node => {
            node.textContent = "long\\n".repeat(500);
            window.scrolled = new Promise(done => node.addEventListener("scroll", done, {once: true}));
        }"""
    )
    left.focus()
    page.keyboard.press("ArrowDown")
    page.evaluate("async () => { await window.scrolled }")
    expect_rated(page, 1, 3)
    export = service.http.get(f"/studies/{study['id']}/export.csv", headers=service.researcher).text
    assert "both 1 and 3 are fine, u know" in export


def test_a_phone_and_the_dark(service: Service, browse: Callable[..., Watched]) -> None:
    browser = browse(viewport={"width": 360, "height": 640}, color_scheme="dark")
    page = browser.open(service.rater(service.study({"x": 2})).link)
    expect_rated(page, 0, 2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(15, 19, 24)"
    page.locator("[data-choice=right]").click()
    expect_rated(page, 1, 2)


def test_a_closed_study_says_so(service: Service, browse: Callable[..., Watched]) -> None:
    study = service.study({"x": 2})
    page = browse().open(service.rater(study).link)
    expect_rated(page, 0, 2)
    service.http.post(f"/studies/{study['id']}/unblind", headers=service.researcher)
    page.keyboard.press("1")
    expect(page.locator("#error")).to_contain_text("This study is closed")
