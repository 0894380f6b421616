"""The rater's page beside voting: accessible in every state, folded turns, pause, help, quick exit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from app.db.models import Skip
from app.db.session import transaction
from tests.browser.rating import expect_rated, question, wait_until_held
from tests.browser.watched import Watched
from tests.study_world import Row, Service, evaluated_job

pytestmark = pytest.mark.browser

HEBREW = "שלום, מה שלומך?"
CODE = "Try this:\n\n    if x:\n        print('<b>')\n\n- one\n- two\n"


def long_study(service: Service, pairs: int = 3) -> dict[str, object]:
    """Long answers of different length, code, lists, and a text from right to left."""

    def answers(times: int) -> list[Row]:
        turns = [("system", "Be kind."), ("user", "First?"), ("assistant", HEBREW), ("user", "And then?")]
        prompt = [{"role": role, "content": content} for role, content in turns]
        return [
            Row(f"s{i}", "x", prompt, f"{HEBREW}\n{CODE}" + f"A longer line {i}.\n" * times)
            for i in range(pairs)
        ]

    jobs = {"a": evaluated_job(answers(120), name="a"), "b": evaluated_job(answers(60), name="b")}
    answer = service.http.post("/studies", json={"name": "n", **jobs}, headers=service.researcher)
    assert answer.status_code == 201, answer.text
    study: dict[str, object] = answer.json()
    return study


def violations(page: Page) -> list[str]:
    """What axe finds, with the elements."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {[node['target'] for node in one['nodes']]}" for one in found]


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_any_state(
    service: Service, browse: Callable[..., Watched], width: int, scheme: str
) -> None:
    study = long_study(service)
    browser = browse(viewport={"width": width, "height": 640}, color_scheme=scheme)
    rater = service.rater(study)
    page = browser.open(rater.link)
    expect_rated(page, 0, 3)
    found = {"pair": violations(page)}

    def check(state: str, *keys: str) -> None:
        for key in keys:
            page.keyboard.press(key)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, state
        found[state] = violations(page)

    check("earlier turns and comment open", "e", "c")
    page.keyboard.press("Escape")
    page.locator(".warning summary").click()
    check("warning open and flagged", "f")
    check("help", "?")
    page.locator("#helping button").click()
    check("skipping", "s")
    page.locator("#skip-cancel").click()
    check("paused", "p")
    page.keyboard.press("p")
    wait_until_held(page, 3)
    browser.context.set_offline(True)
    page.keyboard.press("1")
    expect(page.locator("#waiting")).to_be_visible()
    check("offline")
    for _ in range(2):
        page.keyboard.press("1")
    check("offline without a pair")
    browser.context.set_offline(False)
    expect(page.locator("#finished")).to_be_visible()
    check("finished")
    page.keyboard.press("u")
    expect_rated(page, 2, 3)
    service.http.post(f"/studies/{study['id']}/unblind", headers=service.researcher)
    page.keyboard.press("1")
    expect(page.locator("#error")).to_contain_text("This study is closed")
    check("closed")
    page.locator("#leave").click()
    page.wait_for_url("**/blank")
    check("left")
    page.goto(f"{rater.link}x")
    check("no such link")
    assert {state: said for state, said in found.items() if said} == {}


def test_earlier_turns_are_folded_and_white_space_is_kept(
    service: Service, browse: Callable[..., Watched]
) -> None:
    page = browse().open(service.rater(long_study(service)).link)
    expect_rated(page, 0, 3)
    earlier = page.locator(".earlier")
    expect(earlier.locator("summary")).to_contain_text("3 earlier turns")
    expect(page.get_by_text("And then?")).to_be_visible()
    expect(page.get_by_text("First?")).to_be_hidden()
    page.keyboard.press("e")
    expect(page.get_by_text("First?")).to_be_visible()
    page.keyboard.press("e")
    expect(page.get_by_text("First?")).to_be_hidden()
    left = page.locator("#left")
    assert CODE in left.inner_text()
    assert left.locator("*").count() == 0
    # The Hebrew paragraph stands on the right, the English ones on the left.
    edges = left.evaluate(
        """node => {
            const text = node.firstChild, range = document.createRange();
            const box = (from, to) => {
                range.setStart(text, from); range.setEnd(text, to); return range.getBoundingClientRect();
            };
            const inner = node.getBoundingClientRect(), hebrew = box(0, 5), english = box(17, 22);
            return [inner.right - hebrew.right, hebrew.left - inner.left, english.left - inner.left];
        }"""
    )
    assert edges[0] < edges[1]
    assert edges[2] < 30


def test_answers_scroll_together_if_wanted(service: Service, browse: Callable[..., Watched]) -> None:
    page = browse().open(service.rater(long_study(service)).link)
    expect_rated(page, 0, 3)
    scroll = """async goal => {
        const [left, right] = ["left", "right"].map(id => document.getElementById(id));
        const scrolled = new Promise(done => left.addEventListener("scroll", done, {once: true}));
        left.scrollTop = goal * (left.scrollHeight - left.clientHeight);
        await scrolled;
        await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
        return right.scrollTop / (right.scrollHeight - right.clientHeight);
    }"""
    assert page.evaluate(scroll, 1.0) == pytest.approx(1.0, abs=0.01)
    assert page.evaluate(scroll, 0.5) == pytest.approx(0.5, abs=0.01)
    page.get_by_label("Scroll both answers together").uncheck()
    assert page.evaluate(scroll, 0.9) == pytest.approx(0.5, abs=0.01)
    page.reload()
    expect_rated(page, 0, 3)
    expect(page.get_by_label("Scroll both answers together")).not_to_be_checked()  # remembered
    assert page.evaluate(scroll, 0.9) == 0


def test_a_pause_hides_the_texts_and_takes_no_vote(service: Service, browse: Callable[..., Watched]) -> None:
    page = browse().open(service.rater(long_study(service)).link)
    expect_rated(page, 0, 3)
    page.keyboard.press("p")
    expect(page.locator("#paused")).to_be_visible()
    expect(page.locator("#go-on")).to_be_focused()
    for hidden in ("#left", "#right", "#prompt", "[data-choice=left]"):
        expect(page.locator(hidden)).to_be_hidden()
    for key in "1usfc":
        page.keyboard.press(key)
    assert page.locator("dialog[open]").count() == 0
    page.keyboard.press("p")
    expect_rated(page, 0, 3)
    expect(page.locator("#left")).to_be_visible()


def test_a_reason_is_given_by_a_number_or_in_words(service: Service, browse: Callable[..., Watched]) -> None:
    page = browse().open(service.rater(long_study(service)).link)
    expect_rated(page, 0, 3)
    page.keyboard.press("s")
    page.keyboard.press("Escape")
    expect_rated(page, 0, 3)
    page.keyboard.press("f")
    expect(page.locator("#flag")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("s")
    page.keyboard.press("4")
    expect_rated(page, 1, 3)
    expect(page.locator("#flag")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("s")
    page.get_by_label("Another reason").fill("  both lie about 3 things ")
    page.keyboard.press("Enter")
    expect_rated(page, 2, 3)
    with transaction() as session:
        kept = [(row.reason, row.harmful) for row in session.query(Skip).order_by(Skip.id)]
    assert kept == [("broken or empty text", True), ("both lie about 3 things", False)]


@pytest.mark.parametrize("way", ["button", "keys", "keys in a dialog"])
def test_a_quick_exit_leaves_nothing(service: Service, browse: Callable[..., Watched], way: str) -> None:
    browser = browse()
    page = browser.open("about:blank")
    page.goto(service.rater(long_study(service)).link)
    expect_rated(page, 0, 3)
    if way == "button":
        page.locator("#leave").click()
    else:
        if way == "keys in a dialog":
            page.keyboard.press("?")
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
    page.wait_for_url("**/blank")
    assert page.title() == "Blank page"
    assert page.locator("main").inner_text() == "Blank page"
    page.go_back()
    assert page.url == "about:blank"
    page.go_forward()
    assert page.url.endswith("/blank")
    assert page.evaluate("Object.keys(sessionStorage).length") == 0


@pytest.mark.parametrize("size", [(360, 640), (740, 360)])
def test_the_way_out_stays_on_a_small_screen(
    service: Service, browse: Callable[..., Watched], size: tuple[int, int]
) -> None:
    page = browse(viewport={"width": size[0], "height": size[1]}).open(
        service.rater(long_study(service)).link
    )
    expect_rated(page, 0, 3)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    assert page.evaluate("scrollY") > 100
    for control in ("#leave", "[data-choice=left]"):
        expect(page.locator(control)).to_be_in_viewport(ratio=1)
    seen = page.locator("#leave").evaluate(
        "node => { const box = node.getBoundingClientRect();"
        " return document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2) === node; }"
    )
    assert seen


TWICE = """() => {
  const focused = document.activeElement; // in the dialog, and still there when that is closed
  for (const _ of [1, 2]) {
    focused.dispatchEvent(new KeyboardEvent("keydown", { key: "2", bubbles: true, cancelable: true }));
  }
}"""


def test_a_key_that_follows_a_skip_at_once_is_a_vote(
    service: Service, browse: Callable[..., Watched]
) -> None:
    study = service.study({"x": 3})
    page = browse().open(service.rater(study).link)
    expect_rated(page, 0, 3)
    wait_until_held(page, 3)
    page.keyboard.press("s")
    page.evaluate(TWICE)
    expect_rated(page, 2, 3)
    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    assert (found["total"]["n"], found["exclusions"]["skipped"]) == (1, 1)


def test_a_session_of_twenty_pairs_by_keys_alone(service: Service, browse: Callable[..., Watched]) -> None:
    study = service.study({"x": 20})
    browser = browse()
    page = browser.open(service.rater(study).link)
    expect_rated(page, 0, 20)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("take your last answer back")
    page.keyboard.press("Escape")
    seen = set()
    for number in range(20):
        expect(page.locator("[data-choice=left]")).to_be_enabled()
        seen.add(question(page))
        if number == 5:
            page.keyboard.press("c")
            page.keyboard.type("1 is better, u 2?")
            page.keyboard.press("Escape")
        if number == 9:
            page.keyboard.press("p")
            page.keyboard.press("p")
        if number == 12:
            page.keyboard.press("f")
        page.keyboard.press("S" if number == 15 else "123"[number % 3])
        if number == 15:
            page.keyboard.press("2")
    expect(page.locator("#finished")).to_be_visible()
    assert len(seen) == 20
    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    assert (found["total"]["n"], found["exclusions"]["skipped"]) == (19, 1)
    assert browser.console == []
