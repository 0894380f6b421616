"""A real HTTP server that plays OpenAI's chat completions, with its faults."""

from __future__ import annotations

import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
FAULTS = ("429", "500", "cut", "slow", "json", "html")
HTML = b"<!doctype html><html><body>Welcome to the login page</body></html>"


def word_count(body: Body) -> int:
    """The prompt's tokens, as this server counts them."""
    return sum(len(message["content"].split()) for message in body["messages"])


@dataclass
class ChatServer:
    """What it does and what it saw; ``answered`` counts whole answers by request: what was paid for."""

    reply: Callable[[Body], str] = lambda body: f"answer to {body['messages'][-1]['content']}"
    fault: Callable[[int], str | None] = lambda number: None
    """By the number of the arrival, from 1: one of ``FAULTS``, or none."""
    usage: Callable[[Body, str], Any] = lambda body, text: {
        "prompt_tokens": word_count(body),
        "completion_tokens": len(text.split()),
    }
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with a status other than 200."""
    error: Body = field(default_factory=dict)
    """Sent instead of the usual error."""
    url: str = ""
    bodies: list[Body] = field(default_factory=list)
    seen_headers: list[dict[str, str]] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)
    """Set to let slow answers go on."""

    def spec(self, **more: Any) -> dict[str, Any]:
        """The endpoint of a job."""
        return {"url": self.url, "model": "played", **more}

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length", 0))
        body = json.loads(handler.rfile.read(length))
        with self.lock:
            self.bodies.append(body)
            self.seen_headers.append(dict(handler.headers))
            fault = self.fault(len(self.bodies))
        if fault in ("slow", "hold"):
            self.released.wait(30)
        if fault == "hold":  # and never answer
            handler.close_connection = True
            return
        if fault in ("302", "429", "500"):
            _send(handler, int(fault), self.error or {"error": {"message": f"played {fault}"}}, self.headers)
        elif fault == "html":
            _send(handler, 200, HTML, {"Content-Type": "text/html"})
        elif fault == "json":
            _send(handler, 200, b'{"choices": [{"message": ')
        else:
            self._answer(handler, body, fault)

    def _answer(self, handler: BaseHTTPRequestHandler, body: Body, fault: str | None) -> None:
        text = self.reply(body)
        usage = self.usage(body, text)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        whole = json.dumps({"choices": [choice], "usage": usage}).encode()
        if fault == "cut":
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(whole)))
            handler.end_headers()
            handler.wfile.write(whole[: len(whole) // 2])
            handler.close_connection = True
            return
        with self.lock:
            self.answered[json.dumps(body, sort_keys=True)] += fault is None
            self.tokens += sum((usage or {}).values())
        _send(handler, 200, whole)


@contextmanager
def serving(tls: ssl.SSLContext | None = None, **behaviour: Any) -> Iterator[ChatServer]:
    """A server on a free port of the loopback address."""
    played = ChatServer(**behaviour)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            try:
                played.handle(self)
            except (BrokenPipeError, ConnectionResetError):  # the client gave up
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    played.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield played
    finally:
        played.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _send(
    handler: BaseHTTPRequestHandler, status: int, content: Any, headers: dict[str, str] | None = None
) -> None:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)
