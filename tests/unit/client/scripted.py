"""A real HTTP server that plays scripted answers, for the clients."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import stamina

JOB = {"id": "job_1", "kind": "align", "name": "n", "spec": {}, "created_at": "2026-01-01T00:00:00Z"}


@dataclass
class Script:
    """Answers in turn; each is called with the handler and writes what it likes."""

    answers: list[Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


@contextmanager
def playing() -> Iterator[Script]:
    """A server; its answers are the script's."""
    played = Script()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            played.requests.append((self.command, self.path, dict(self.headers), body))
            played.answers.pop(0)(self)

        do_GET = do_POST = do_DELETE = handle_any

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    played.url = f"http://127.0.0.1:{server.server_port}"
    with stamina_without_waiting():
        yield played
    server.shutdown()
    server.server_close()
    thread.join()


def stamina_without_waiting() -> Any:
    """Retries happen at once; their number stays the client's."""
    return stamina.set_testing(True, attempts=6, cap=True)


def answer(status: int, body: Any, headers: dict[str, str] | None = None) -> Callable[..., None]:
    def write(handler: BaseHTTPRequestHandler) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return write


def cut(body: bytes, announced: int, headers: dict[str, str] | None = None) -> Callable[..., None]:
    """Promises more bytes than it sends."""

    def write(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(announced))
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return write


def drop(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
