"""Texts of a study as HTML, where its setting asks for it: Markdown without anything that acts or loads.

Two locks: the parser makes neither links nor images nor raw HTML, and what it made is cleaned to a few tags
without attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

_OFF = ["autolink", "html_block", "html_inline", "image", "link", "reference"]
_TAGS = {
    "blockquote", "br", "code", "em", "hr", "li", "ol", "p", "pre", "strong", "table", "tbody", "td", "th",
    "thead", "tr", "ul",
}  # fmt: skip


def _heading(text: str) -> Callable[..., str]:
    """Headings are bold paragraphs: the page's own outline is not the text's to change."""

    def rule(_: RendererHTML, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
        return text

    return rule


_parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(_OFF)
_parser.add_render_rule("heading_open", _heading("<p><strong>"))
_parser.add_render_rule("heading_close", _heading("</strong></p>\n"))


def to_html(text: str) -> str:
    """A text's Markdown as HTML that is safe to put into a page."""
    return nh3.clean(_parser.render(text), tags=_TAGS, attributes={"ol": {"start"}}, link_rel=None)
