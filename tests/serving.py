"""The app on a port of this process, for tests that need a network."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from app.main import create_app


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


@contextmanager
def serving() -> Iterator[str]:
    """The address of the app, which uses this process's settings."""
    server = _Server()
    thread = threading.Thread(target=server.run)
    thread.start()
    assert server.listening.wait(30), "the service did not start"
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()
