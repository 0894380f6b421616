"""What only a real connection shows: cut uploads, and memory while a large one arrives."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from app.db.models import Role
from app.settings import get_settings
from tests.api_world import headers_for
from tests.served_process import served_process
from tests.worker_world import until


@pytest.fixture
def server(service_settings: None) -> Iterator[tuple[str, psutil.Process]]:
    """The service's address, and its process."""
    with served_process() as running:
        yield running.url, psutil.Process(running.pid)


def partials() -> list[Path]:
    return list(get_settings().uploads_root.iterdir())


def test_a_cut_connection_leaves_nothing(server: tuple[str, psutil.Process]) -> None:
    url, _ = server
    headers = headers_for(Role.RESEARCHER)
    port = int(url.rpartition(":")[2])
    head = f"POST /datasets HTTP/1.1\r\nHost: x\r\nAuthorization: {headers['Authorization']}\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{head}Content-Length: 50000000\r\n\r\n".encode() + b"x" * 5_000_000)
        until(lambda: [partial.stat().st_size > 0 for partial in partials()] == [True])
    until(lambda: partials() == [])
    assert httpx.get(f"{url}/datasets", headers=headers).json()["data"] == []
    assert not [file for file in get_settings().store_root.rglob("*") if file.is_file()]


def test_a_large_upload_takes_constant_memory(server: tuple[str, psutil.Process]) -> None:
    url, process = server
    megabyte = b"0123456789abcdef" * 65_536
    megabytes = 200
    digest, before, peak = hashlib.sha256(), process.memory_info().rss, 0

    def pieces() -> Iterator[bytes]:
        nonlocal peak
        for _ in range(megabytes):
            digest.update(megabyte)
            peak = max(peak, process.memory_info().rss)
            yield megabyte

    answer = httpx.post(
        f"{url}/datasets", content=pieces(), headers=headers_for(Role.RESEARCHER), timeout=120
    )
    assert answer.status_code == 201, answer.text
    assert answer.json()["sha256"] == digest.hexdigest()
    assert answer.json()["size"] == megabytes * len(megabyte)
    assert peak - before < 60 * 2**20
