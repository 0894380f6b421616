"""What is made for a request is sent like a file: named by its hash, whole or in part."""

from __future__ import annotations

import hashlib

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from app.api.downloads import send_made
from app.errors import Problem

CONTENT = b"arm,value\nDPO,1\n"
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'


def ask(**headers: str) -> tuple[int, bytes, str | None]:
    async def table(request: Request) -> Response:
        try:
            return send_made(request, CONTENT, "text/csv", {"Content-Disposition": "attachment"})
        except Problem as problem:
            return problem.response("req_1")

    app = Starlette()
    app.add_route("/", table)
    answer = TestClient(app).get("/", headers=headers)
    if answer.status_code in (200, 206, 304):
        assert answer.headers["etag"] == ETAG
    if answer.status_code != 304:
        assert answer.headers["content-length"] == str(len(answer.content))
    return answer.status_code, answer.content, answer.headers.get("content-range")


def test_whole() -> None:
    assert ask() == (200, CONTENT, None)
    assert ask(**{"If-None-Match": ETAG}) == (304, b"", None)
    assert ask(Range="bytes=0-1,3-4") == (200, CONTENT, None)  # parts are sent of stored files only
    assert ask(**{"Range": "bytes=1-", "If-Range": '"of yesterday"'}) == (200, CONTENT, None)


def test_in_part() -> None:
    size = len(CONTENT)
    assert ask(Range="bytes=0-2") == (206, b"arm", f"bytes 0-2/{size}")
    assert ask(Range="bytes=10-") == (206, CONTENT[10:], f"bytes 10-{size - 1}/{size}")
    assert ask(Range="bytes=-4") == (206, CONTENT[-4:], f"bytes {size - 4}-{size - 1}/{size}")
    assert ask(Range="bytes=-9999") == (206, CONTENT, f"bytes 0-{size - 1}/{size}")
    assert ask(**{"Range": "bytes=4-9999", "If-Range": ETAG}) == (
        206, CONTENT[4:], f"bytes 4-{size - 1}/{size}",
    )  # fmt: skip


def test_not_at_all() -> None:
    assert ask(Range=f"bytes={len(CONTENT)}-")[0::2] == (416, f"bytes */{len(CONTENT)}")
    assert ask(Range="bytes=2-1")[0] == 400
