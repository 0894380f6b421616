"""What a process prints, up to the words that tests wait for."""

from __future__ import annotations

from collections.abc import Iterable


def lines_up_to(words: str, lines: Iterable[str]) -> list[str]:
    """The lines up to the one with ``words``; all there are where the process ended without them."""
    said = []
    for line in lines:
        said.append(line)
        if words in line:
            break
    return said
