"""A study whose texts are Markdown: lists and code in form, nothing to click, nothing loaded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.rating import expect_rated
from tests.browser.test_rating_page import violations
from tests.browser.watched import Watched
from tests.study_world import Row, Service, evaluated_job

pytestmark = pytest.mark.browser

ANSWER = """## A list

- **one** <script>alert(1)</script>
- two ![dot](http://elsewhere/x.png)

```py
if x < 1:
    print([link](http://elsewhere))
```

See [this](javascript:alert(1)).
"""


def test_markdown_has_its_form_and_does_nothing(
    service: Service, address: str, browse: Callable[..., Watched]
) -> None:
    prompt = [{"role": "user", "content": "*What?*"}]
    jobs = {
        side: evaluated_job([Row(f"s{i}", "x", prompt, ANSWER) for i in range(2)], name=side) for side in "ab"
    }
    body = {"name": "n", **jobs, "texts": "markdown"}
    study = service.http.post("/studies", json=body, headers=service.researcher).json()
    assert study["texts"] == "markdown"
    browser = browse(viewport={"width": 360, "height": 640})
    page = browser.open(service.rater(study).link)
    expect_rated(page, 0, 2)
    left = page.locator("#left")
    expect(left.locator("li")).to_have_text(
        ["one <script>alert(1)</script>", "two ![dot](http://elsewhere/x.png)"]
    )
    expect(left.locator("strong").first).to_have_text("A list")
    code = "if x < 1:\n    print([link](http://elsewhere))\n"
    assert left.locator("pre").text_content() == code
    expect(page.locator(".said em")).to_have_text("What?")
    assert page.locator("main :is(a, img, script, [onclick])").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert violations(page) == []
    page.keyboard.press("2")
    expect_rated(page, 1, 2)
    expect(left.locator("li")).to_have_count(2)
    page.keyboard.press("u")
    expect_rated(page, 0, 2)
    expect(left.locator("li")).to_have_count(2)
    assert browser.console == []
    assert browser.hosts == {address.removeprefix("http://")}


def test_a_pair_is_rendered_for_its_rater_alone(service: Service) -> None:
    study = service.study({"x": 2}, protocol="rigorous")
    ada, bob = service.rater(study, "Ada"), service.rater(study, "Bob")
    pair = ada.pair()
    path = f"/annotate/pairs/{pair['id']}"
    html = service.http.get(path, headers=ada.headers).json()
    assert set(html) == {"prompt", "left", "right"}
    assert html["left"].startswith(f"<p>{pair['left'].split(' says')[0]}")
    assert service.http.get(path, headers=bob.headers).status_code == 404
    assert service.http.get(path, headers=service.researcher).status_code == 403
    assert service.http.get(path).status_code == 401
