"""Raters and researchers in Chromium: a whole study by keys, a bad network, a phone, an invitation."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from fastapi.testclient import TestClient
from playwright.sync_api import Page, Route, expect
from scipy.stats import binomtest

from app.auth import find_usable_key, start_web_session
from app.cookies import SESSION_COOKIE
from app.db.models import Role
from app.db.session import transaction
from app.main import create_app
from tests.browser.watched import Watched
from tests.study_world import Service, api_key

pytestmark = pytest.mark.browser

COUNTS = {"harmless-base": 5, "helpful-base": 5, "helpful-online": 5, "helpful-rejection": 5}
KEYS = {"1": "left", "ArrowLeft": "left", "2": "tie", "ArrowDown": "tie", "3": "right", "ArrowRight": "right"}


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


def expect_rated(page: Page, done: int, total: int) -> None:
    text = f"{done} of {total} rated" if done < total else "All pairs rated"
    expect(page.locator("#count")).to_have_text(text)
    if done < total:
        expect(page.locator("[data-choice=tie]")).to_be_enabled()


def log_in(browser: Watched, service: Service, address: str) -> None:
    with transaction() as session:
        key = find_usable_key(session, service.researcher["Authorization"].removeprefix("Bearer "))
        assert key is not None
        cookie = start_web_session(session, key)
    browser.context.add_cookies([{"name": SESSION_COOKIE, "value": cookie, "url": address}])


def author(page: Page, side: str) -> str:
    """Which system wrote the answer on a side, told by the text on the screen alone."""
    return page.locator(f"#{side}").inner_text().split()[0].removeprefix("system-")


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
            assert page.locator(".said").first.inner_text() == last
            page.keyboard.press("2")
            votes[last] = ("tie", "tie")
            expect_rated(page, 7, 20)
        if done == 12:  # a reload goes on at the same pair, without the link
            before = page.locator("#left").inner_text()
            page.reload()
            assert page.url == f"{address}/annotate"
            expect_rated(page, 12, 20)
            assert page.locator("#left").inner_text() == before
        question = page.locator(".said").first.inner_text()
        key = list(KEYS)[done % 6]
        side = KEYS[key]
        votes[question] = ("tie" if side == "tie" else author(page, side), side)
        page.keyboard.press(key)
    expect(page.locator("#finished")).to_contain_text("All your pairs are rated")
    assert len(votes) == 20

    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    for aspect in ("harmless", "helpful", "total", *COUNTS):
        part = found["subsets"][aspect] if aspect in COUNTS else found[aspect]
        prefix = "" if aspect == "total" else aspect
        winners = Counter(won for asked, (won, _) in votes.items() if asked.split()[-1].startswith(prefix))
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
    assert found["exclusions"] == {"undone": 1, "unvoted": 0, "skipped": 0}
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
    assert page.locator(".role").all_inner_texts() == ["Person", "Assistant", "Person"]
    assert left.evaluate("node => getComputedStyle(node).whiteSpace") == "pre-wrap"


def test_a_vote_without_network_is_said_and_can_be_sent_again(
    service: Service, browse: Callable[..., Watched]
) -> None:
    study = service.study({"x": 3})
    page = browse().open(service.rater(study).link)
    expect_rated(page, 0, 3)
    page.route("**/assignments/*", lambda route: route.abort())
    page.keyboard.press("1")
    expect(page.locator("#error")).to_contain_text("Nothing is lost")
    page.unroute("**/assignments/*")

    def lose_the_answer(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/assignments/*", lose_the_answer, times=1)
    page.keyboard.press("1")  # arrives, but the answer does not
    expect(page.locator("#error")).to_contain_text("Nothing is lost")
    expect(page.locator("[data-choice=left]")).to_be_enabled()
    page.keyboard.press("1")
    expect_rated(page, 1, 3)
    expect(page.locator("#error")).to_be_hidden()
    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    assert found["total"]["n"] == 1


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
    page.locator("summary").focus()
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
