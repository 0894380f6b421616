"""Two raters at once, sixty pairs each, and everything that goes wrong; the counts are exact all the same."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Page, expect
from scipy.stats import binomtest

from app.db.models import Role
from app.main import create_app
from tests.browser.rating import author, question, wait_until_held
from tests.browser.watched import Watched
from tests.served_process import ServedProcess, served_process
from tests.study_world import Service, api_key

pytestmark = [pytest.mark.browser, pytest.mark.slow]

COUNTS = {"harmless-base": 15, "helpful-base": 15, "helpful-online": 15, "helpful-rejection": 15}
SIDES = {"1": "left", "2": "tie", "3": "right"}


@pytest.fixture
def process(service_settings: None) -> Iterator[ServedProcess]:
    with served_process() as running:
        yield running


@dataclass
class Seat:
    """A rater before a screen, who notes what they chose."""

    page: Page
    votes: dict[str, tuple[str, str]] = field(default_factory=dict)  # question -> winner, side

    def vote(self, key: str) -> str:
        expect(self.page.locator(f"[data-choice={SIDES[key]}]")).to_be_enabled(timeout=30_000)
        asked = question(self.page)
        assert asked not in self.votes
        side = SIDES[key]
        self.votes[asked] = ("tie" if side == "tie" else author(self.page, side), side)
        self.page.keyboard.press(key)
        return asked

    def arrived(self, done: int) -> None:
        expect(self.page.locator("#count")).to_have_text(f"{done} of 60 rated", timeout=60_000)


def test_two_raters_through_everything(process: ServedProcess, browse: Callable[..., Watched]) -> None:
    address = process.url
    with TestClient(create_app(), base_url=address) as http:
        keys = [{"Authorization": f"Bearer {api_key(role)}"} for role in (Role.RESEARCHER, Role.VIEWER)]
        service = Service(http, *keys)
        study = service.study(COUNTS, protocol="rigorous")
        links = [service.rater(study, name).link for name in ("Ada", "Bob")]
        browsers = [browse(), browse()]
        ada, bob = seats = [Seat(each.open(link)) for each, link in zip(browsers, links, strict=True)]
        for number in range(60):
            if number == 10:
                ada.arrived(10)
                wait_until_held(ada.page)
                browsers[0].context.set_offline(True)
            if number == 14:
                expect(ada.page.locator("#waiting")).to_contain_text("4 votes wait")
                browsers[0].context.set_offline(False)
            if number == 20:
                bob.page.reload()
            if number == 25:
                bob.arrived(25)
                last = list(bob.votes)[-1]
                bob.page.keyboard.press("u")
                bob.arrived(24)
                assert question(bob.page) == last
                del bob.votes[last]
                assert bob.vote("3") == last
            if number == 30:
                other = browsers[1].open(links[1])
                expect(other.locator("[data-choice=left]")).to_be_enabled(timeout=30_000)
                assert question(other) == question(bob.page)
            if number == 31:
                other.keyboard.press("3" if list(bob.votes.values())[-1][1] != "right" else "1")
                expect(other.locator("#error")).to_contain_text("another choice was made", timeout=30_000)
                other.close()
            if number == 40:
                for seat in seats:
                    seat.arrived(40)
                    wait_until_held(seat.page)
                process.end(signal.SIGKILL)
            if number == 43:
                expect(ada.page.locator("#waiting")).to_contain_text("3 votes wait", timeout=30_000)
                process.start()
            for seat, key in zip(seats, ("123"[number % 3], "3121"[number % 4]), strict=True):
                seat.vote(key)
        for seat in seats:
            expect(seat.page.locator("#finished")).to_be_visible(timeout=30_000)
            assert len(seat.votes) == 60
        found = http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    cast = [(asked.split()[-1].rstrip("?"), *vote) for seat in seats for asked, vote in seat.votes.items()]
    for aspect in ("harmless", "helpful", "total", *COUNTS):
        part = found["subsets"][aspect] if aspect in COUNTS else found[aspect]
        prefix = "" if aspect == "total" else aspect
        winners = Counter(winner for subset, winner, _ in cast if subset.startswith(prefix))
        assert part["n"] == winners.total()
        for name, who in (("win", "a"), ("tie", "tie"), ("lose", "b")):
            assert part[name]["count"] == winners[who], (aspect, name)
            interval = binomtest(winners[who], winners.total()).proportion_ci(0.95, "wilson")
            assert part[name]["interval"] == pytest.approx([interval.low, interval.high])
    assert found["total"]["left"]["count"] == sum(side == "left" for *_, side in cast)
    assert (found["exclusions"]["undone"], found["exclusions"]["unvoted"]) == (1, 0)
