"""A server that misbehaves as it is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.client.scripted import Script, playing


@pytest.fixture
def script() -> Iterator[Script]:
    with playing() as played:
        yield played
