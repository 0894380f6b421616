from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stamina

from deft_engine.endpoints.cache import AnswerCache
from deft_engine.endpoints.client import ChatClient
from deft_engine.endpoints.hosts import HOSTS_VARIABLE, AllowedHosts
from deft_engine.endpoints.secrets import ApiKey
from deft_engine.endpoints.spec import EndpointSpec
from deft_engine.run import StopRequest
from tests.chat_server import ChatServer
from tests.unit.endpoints.stages import KEY, KEY_VARIABLE

Opened = Callable[..., ChatClient]


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """Retries happen at once; their number stays the client's."""
    with stamina.set_testing(True, attempts=8, cap=True):
        yield


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """A client of a server; the cache and the ledger outlive it."""

    def open_client(
        server: ChatServer | str,
        *,
        hosts: str = "127.0.0.1",
        stop: StopRequest | None = None,
        key: str = "",
        **spec: Any,
    ) -> ChatClient:
        url = server if isinstance(server, str) else server.url
        return ChatClient(
            EndpointSpec(url=url, model="played", **spec),
            key=ApiKey(key),
            allowed=AllowedHosts.parse(hosts),
            cache=AnswerCache(tmp_path / "answers"),
            ledger=tmp_path / "spending.jsonl",
            stop=StopRequest() if stop is None else stop,
        )

    return open_client


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The played server may be asked, and its key is set."""
    monkeypatch.setenv(HOSTS_VARIABLE, "127.0.0.1")
    monkeypatch.setenv(KEY_VARIABLE, KEY)
