"""The API's process by itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

_HEAD = b"GET /healthz HTTP/1.1\r\nHost: deft\r\n"
_MORE_THAN_BUFFERS_HOLD = 32_000_000


@pytest.fixture
def address(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Of a running API, without a database; connections wait until it serves."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        descriptor = listener.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "app.embedded.web", str(descriptor)],
            pass_fds=[descriptor],
            env={**os.environ, "DEFT_HOME": str(tmp_path)},
        )
        yield listener.getsockname()
        process.terminate()
        process.wait(20)


def answer(address: tuple[str, int], request: bytes) -> bytes:
    """What comes back until the service closes the connection."""
    with socket.create_connection(address, timeout=60) as connection, suppress(ConnectionError):
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))
    return b"cut"


def test_a_header_without_end_is_not_kept(address: tuple[str, int]) -> None:
    assert answer(address, _HEAD + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200")
    endless = answer(address, _HEAD + b"X-Endless: " + b"a" * _MORE_THAN_BUFFERS_HOLD)
    assert endless == b"cut" or endless.startswith(b"HTTP/1.1 400")
