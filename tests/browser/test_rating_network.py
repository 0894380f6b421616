"""Votes and the network: pairs held ahead, votes that wait, reloads, tabs, devices; each vote counts once."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect
from sqlalchemy import func, select

from app.db.models import Skip, Vote
from app.db.session import transaction
from tests.browser.rating import author, expect_rated, question, wait_until_held
from tests.browser.watched import Watched
from tests.study_world import Rater, Service

pytestmark = pytest.mark.browser

# Presses a key and tells the milliseconds until the next pair was painted.
NEXT_PAIR_AFTER = """key => new Promise(done => {
    const left = document.getElementById("left"), before = left.textContent, start = performance.now();
    const look = () => left.textContent !== before
        ? requestAnimationFrame(() => done(performance.now() - start)) : requestAnimationFrame(look);
    document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
    look();
})"""


def standing(study: str, service: Service) -> Counter[str]:
    """Standing votes by winner, as the researcher sees them."""
    found = service.http.get(f"/studies/{study}/results", headers=service.researcher).json()["total"]
    return Counter({"a": found["win"]["count"], "tie": found["tie"]["count"], "b": found["lose"]["count"]})


def rows(kind: type[Vote | Skip]) -> int:
    """Rows of votes or skips, the undone ones too."""
    with transaction() as session:
        return session.scalar(select(func.count()).select_from(kind)) or 0


def vote(page: Page, key: str, done: int, total: int) -> str:
    """Press a key on the next pair; returns the winner."""
    expect(page.locator("[data-choice=left]")).to_be_enabled()
    winner = "tie" if key == "2" else author(page, {"1": "left", "3": "right"}[key])
    page.keyboard.press(key)
    expect_rated(page, done, total)
    return winner


def test_the_next_pair_is_there_at_once_on_a_slow_network(
    service: Service, browse: Callable[..., Watched]
) -> None:
    page = browse().open(service.rater(service.study({"x": 24})).link)
    wait_until_held(page)

    def be_slow(route: Route) -> None:
        page.wait_for_timeout(60)
        route.continue_()

    page.route("**/assignments*/**", be_slow)
    page.route("**/assignments:next*", be_slow)
    took = []
    for number in range(20):
        took.append(page.evaluate(NEXT_PAIR_AFTER, "123"[number % 3]))
        page.wait_for_timeout(300)  # a fast rater's reading: what the pairs held ahead must cover
    assert statistics.median(took) < 100, took


def test_votes_without_network_are_kept_and_sent_once(
    service: Service, browse: Callable[..., Watched]
) -> None:
    study = service.study({"x": 9})
    browser = browse()
    page = browser.open(service.rater(study).link)
    votes = Counter([vote(page, "1", 1, 9)])
    wait_until_held(page)
    browser.context.set_offline(True)
    for number, key in enumerate("3122", start=1):
        votes["tie" if key == "2" else author(page, {"1": "left", "3": "right"}[key])] += 1
        page.keyboard.press(key)
        noun = "vote waits" if number == 1 else "votes wait"
        expect(page.locator("#waiting")).to_contain_text(f"{number} {noun} for the network")
    expect(page.locator("#count")).to_have_text("1 of 9 rated")  # what has arrived
    votes["tie"] += 1
    page.keyboard.press("2")  # the last pair held
    expect(page.locator("#waiting")).to_contain_text("5 votes wait")
    expect(page.locator("[data-choice=left]")).to_be_disabled()
    page.keyboard.press("1")  # nothing to vote on
    stored = page.evaluate("JSON.stringify(localStorage)")
    assert "says" not in stored  # no text of a pair
    assert "system" not in stored
    browser.context.set_offline(False)
    expect_rated(page, 6, 9)
    expect(page.locator("#waiting")).to_be_hidden()
    assert standing(study["id"], service) == votes
    assert rows(Vote) == 6
    assert page.evaluate("Object.keys(localStorage).filter(key => key.includes('answer')).length") == 0


def test_votes_that_wait_survive_a_reload_and_a_lost_answer(
    service: Service, browse: Callable[..., Watched]
) -> None:
    study = service.study({"x": 6})
    browser = browse()
    page = browser.open(service.rater(study).link)
    expect_rated(page, 0, 6)
    wait_until_held(page)

    def lose_the_answer(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/assignments/*", lose_the_answer)
    votes = Counter([author(page, "left")])
    page.keyboard.press("1")  # arrives, but the page does not hear of it
    expect(page.locator("#waiting")).to_contain_text("1 vote waits")
    votes["tie"] += 1
    page.keyboard.press("2")
    expect(page.locator("#waiting")).to_contain_text("2 votes wait")
    page.unroute("**/assignments/*")
    page.reload()
    expect_rated(page, 2, 6)
    assert standing(study["id"], service) == votes
    assert rows(Vote) == 2


def test_what_was_not_sent_is_taken_back_without_the_network(
    service: Service, browse: Callable[..., Watched]
) -> None:
    study = service.study({"x": 6})
    browser = browse()
    page = browser.open(service.rater(study).link)
    expect_rated(page, 0, 6)
    wait_until_held(page)
    browser.context.set_offline(True)
    for _ in range(3):
        page.keyboard.press("1")
    expect(page.locator("#waiting")).to_contain_text("3 votes wait")
    third = question(page)
    page.keyboard.press("u")
    assert question(page) != third
    winner = author(page, "right")
    page.keyboard.press("3")
    assert question(page) == third
    browser.context.set_offline(False)
    expect_rated(page, 3, 6)
    assert standing(study["id"], service)[winner] >= 1
    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    assert found["total"]["left"] == {**found["total"]["left"], "count": 2, "n": 3}
    assert found["exclusions"]["undone"] == 0


def test_undo_goes_back_over_devices_and_reloads(service: Service, browse: Callable[..., Watched]) -> None:
    study = service.study({"x": 4})
    rater = service.rater(study)
    page = browse().open(rater.link)
    expect_rated(page, 0, 4)
    first = question(page)
    vote(page, "1", 1, 4)
    second = question(page)
    page.keyboard.press("s")
    page.keyboard.press("1")
    expect_rated(page, 2, 4)
    assert rows(Skip) == 1

    phone = browse(viewport={"width": 360, "height": 640}).open(rater.link)
    expect_rated(phone, 2, 4)
    assert question(phone) == question(page)
    phone.locator("#undo").click()
    expect_rated(phone, 1, 4)
    assert question(phone) == second
    phone.reload()
    phone.locator("#undo").click()
    expect_rated(phone, 0, 4)
    assert question(phone) == first
    expect(phone.locator("#undo")).to_be_disabled()
    for done in range(1, 4):
        vote(phone, "2", done, 4)
    phone.keyboard.press("2")
    expect(phone.locator("#finished")).to_be_visible()
    phone.reload()
    expect(phone.locator("#finished")).to_be_visible()
    phone.locator("#undo").click()
    expect_rated(phone, 3, 4)
    assert standing(study["id"], service) == Counter({"tie": 3})


def test_an_undo_whose_answer_is_lost_takes_one_vote_back(
    service: Service, browse: Callable[..., Watched]
) -> None:
    study = service.study({"x": 4})
    page = browse().open(service.rater(study).link)
    vote(page, "1", 1, 4)
    last = question(page)
    vote(page, "1", 2, 4)
    wait_until_held(page, 2)

    def lose_the_answer(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/undo", lose_the_answer, times=1)
    page.keyboard.press("u")
    expect(page.locator("#error")).to_contain_text("Nothing is lost")
    page.keyboard.press("u")
    expect_rated(page, 1, 4)
    assert question(page) == last
    assert standing(study["id"], service).total() == 1


def test_a_tab_behind_is_told_and_goes_on_where_the_other_is(
    service: Service, browse: Callable[..., Watched]
) -> None:
    study = service.study({"x": 5})
    browser = browse()
    link = service.rater(study).link
    one, two = browser.open(link), browser.open(link)
    for page in (one, two):
        expect_rated(page, 0, 5)
        wait_until_held(page)
    for done in (1, 2):
        vote(one, "1", done, 5)
    two.keyboard.press("3")
    expect(two.locator("#error")).to_contain_text("another choice was made for this pair")
    expect_rated(two, 2, 5)
    assert question(two) == question(one)
    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    assert (found["total"]["n"], found["total"]["left"]["count"]) == (2, 2)


def test_two_raters_of_one_browser_do_not_mix(service: Service, browse: Callable[..., Watched]) -> None:
    study = service.study({"x": 4}, protocol="rigorous")
    browser = browse()
    ada, bob = service.rater(study, "Ada"), service.rater(study, "Bob")
    page = browser.open(ada.link)
    expect_rated(page, 0, 4)
    wait_until_held(page, 4)
    page.route("**/assignments/*", lambda route: route.abort())
    page.keyboard.press("1")
    expect(page.locator("#waiting")).to_contain_text("1 vote waits")
    page.unroute("**/assignments/*")
    page.goto(bob.link)
    expect_rated(page, 0, 4)
    assert rows(Vote) == 0
    page.goto(ada.link)
    expect_rated(page, 1, 4)
    assert [len(done_by(one)) for one in (ada, bob)] == [1, 0]


def done_by(rater: Rater) -> list[object]:
    answer = rater.last()
    return [] if answer.status_code == 204 else [answer.json()["id"]]


def test_an_ended_session_keeps_the_votes_until_the_link_is_opened_again(
    service: Service, browse: Callable[..., Watched]
) -> None:
    study = service.study({"x": 3})
    browser = browse()
    rater = service.rater(study)
    page = browser.open(rater.link)
    expect_rated(page, 0, 3)
    wait_until_held(page, 3)
    browser.context.clear_cookies()
    winner = author(page, "left")
    page.keyboard.press("1")
    expect(page.locator("#error")).to_contain_text("Open your personal link again; your votes are kept")
    assert rows(Vote) == 0
    page.goto(rater.link)
    expect_rated(page, 1, 3)
    assert standing(study["id"], service) == Counter({winner: 1})
