"""A server that plays the Hugging Face hub's protocol for data sets, its faults included."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Hub:
    """Repositories by name, each a mapping of paths to bytes; ``faults`` come before good answers."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    revisions: set[str] = field(default_factory=lambda: {"main", "v1", COMMIT})
    faults: list[str] = field(default_factory=list)
    """``500``, ``429``, ``cut`` (a file's bytes end early), ``html``, ``elsewhere`` (a file redirects)."""
    elsewhere: str = "http://internal.example"
    requests: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""


@contextmanager
def playing_hub() -> Iterator[Hub]:
    """A hub on a free port."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _answer(self, hub)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


def _answer(handler: BaseHTTPRequestHandler, hub: Hub) -> None:
    path = unquote(urlsplit(handler.path).path)
    hub.requests.append((handler.command, path))
    if hub.faults and hub.faults[0] in ("500", "429", "html"):
        fault = hub.faults.pop(0)
        body = b"<html>sorry</html>"
        return _send(handler, 200 if fault == "html" else int(fault), body, {"Content-Type": "text/html"})
    kind, _, rest = path.removeprefix("/").partition("datasets/")
    parts = rest.split("/")
    files = hub.repositories.get("/".join(parts[:2]))
    if files is None:
        return _refuse(handler, 401, "RepoNotFound")
    action, revision, inner = parts[2], parts[3], "/".join(parts[4:])
    if revision not in hub.revisions:
        return _refuse(handler, 404, "RevisionNotFound")
    if kind == "api/" and action == "revision":
        return _json(handler, {"id": "/".join(parts[:2]), "sha": COMMIT, "siblings": []})
    if kind == "api/" and action == "tree":
        found = [name for name in files if not inner or name.startswith(f"{inner}/")]
        if not found:
            return _refuse(handler, 404, "EntryNotFound")
        return _json(
            handler,
            [{"type": "file", "path": name, "size": len(files[name]), "oid": "0"} for name in found],
        )
    if inner not in files:
        return _refuse(handler, 404, "EntryNotFound")
    return _file(handler, hub, files[inner])


def _file(handler: BaseHTTPRequestHandler, hub: Hub, content: bytes) -> None:
    etag = hashlib.sha256(content).hexdigest()
    headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
    if hub.faults and hub.faults[0] == "elsewhere":
        hub.faults.pop(0)
        return _send(handler, 302, b"", {**headers, "Location": f"{hub.elsewhere}/file"})
    start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
    status, rest = (206, content[start:]) if "Range" in handler.headers else (200, content)
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    if hub.faults and hub.faults[0] == "cut" and handler.command == "GET":
        hub.faults.pop(0)
        handler.close_connection = True
        return _send(handler, status, rest[: len(rest) // 2], headers, announced=len(rest))
    return _send(handler, status, rest, headers)


def _json(handler: BaseHTTPRequestHandler, value: object) -> None:
    _send(handler, 200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _refuse(handler: BaseHTTPRequestHandler, status: int, code: str) -> None:
    _send(handler, status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: dict[str, str],
    announced: int | None = None,
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body) if announced is None else announced))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
        handler.wfile.flush()
