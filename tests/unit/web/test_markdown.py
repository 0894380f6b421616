"""Markdown of models as HTML: forms survive, nothing acts, loads or can be clicked."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web.markdown import to_html

PLAIN_TAGS = {"p", "strong", "em", "code", "pre", "ul", "ol", "li", "blockquote", "hr", "br",
              "table", "thead", "tbody", "tr", "th", "td"}  # fmt: skip
PIECES = ["[a](javascript:x)", "![i](http://h/p.png)", "<script>x</script>", "<img src=x onerror=y>",
          "<http://h>", "[r]", "\n\n[r]: http://h 'onclick'\n\n", "`", "```\n", "**", "* ", "1. ", "> ",
          "|a|b|\n|-|-|\n", "&lt;", "# ", "<a href=x>", "\n", " ", "é", "\x00", "<svg/onload=x>", "<!--",
          "&#106;"]  # fmt: skip


class Found(HTMLParser):
    """Tags and attributes as a parser of HTML sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(tag, name) for name, _ in attrs}


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join))
def test_only_plain_tags_come_out(text: str) -> None:
    found = Found()
    found.feed(to_html(text))
    assert found.tags <= PLAIN_TAGS
    assert found.attributes <= {("ol", "start")}


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("- one\n- **two**", "<ul>\n<li>one</li>\n<li><strong>two</strong></li>\n</ul>\n"),
        ("3. a", '<ol start="3">\n<li>a</li>\n</ol>\n'),
        ("```py\nif x<1:\n    y\n```", "<pre><code>if x&lt;1:\n    y\n</code></pre>\n"),
        ("# Title", "<p><strong>Title</strong></p>\n"),
        ("see [here](http://h)", "<p>see [here](http://h)</p>\n"),
    ],
)
def test_forms_survive(text: str, html: str) -> None:
    assert to_html(text) == html
