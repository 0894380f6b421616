"""What is downloaded: whole or in ranges, with its SHA-256 as strong ETag (RFC 9110, chapters 13 and 14)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from starlette.responses import FileResponse, Response

from app.api.dependencies import problems
from app.errors import Problem

_POSITIONS = r"(\d{1,19}-\d{0,19}|-\d{1,19})"
_RANGE = re.compile(rf"bytes=\s*{_POSITIONS}(\s*,\s*{_POSITIONS})*\s*", re.ASCII | re.IGNORECASE)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_TEXT = {"schema": {"type": "string"}}
_ANY_JSON: dict[str, Any] = {"schema": {}}
_CACHING = {"Cache-Control": "private, no-cache"}


def file_answers(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI's answers of an address that sends a file of one of these types."""
    content = {name: _schema_of(name) for name in media_types}
    parts = {**content, "multipart/byteranges": _BINARY}
    return {
        **problems(416),
        200: {"description": "The file", "content": content},
        206: {"description": "Ranges of it", "content": parts},
        304: {"description": "If-None-Match names its ETag"},
    }


def _schema_of(media_type: str) -> dict[str, Any]:
    if media_type == "application/json":
        return _ANY_JSON
    return _TEXT if media_type.startswith("text/") else _BINARY


def send_file(request: Request, file: FileResponse, sha256: str, size: int) -> Response:
    """A file of the store, which ``file`` would send whole; many ranges are sent in parts.

    Raises:
        Problem: 400 for a malformed range, 416 for one outside the file.
    """
    etag = f'"{sha256}"'
    file.headers.update({"ETag": etag, **_CACHING})
    if _matches(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers={"ETag": etag, **_CACHING})
    if _range_of(request, etag, size) is None:
        _forget_range(request)  # which FileResponse would read by itself
    return file


def send_made(request: Request, content: bytes, media_type: str, headers: Mapping[str, str]) -> Response:
    """What was made for this request; of many ranges all of it is sent.

    Raises:
        Problem: 400 for a malformed range, 416 for one outside the content.
    """
    etag = f'"{hashlib.sha256(content).hexdigest()}"'
    own = {**headers, **_CACHING, "ETag": etag, "Accept-Ranges": "bytes"}
    if _matches(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=own)
    asked = _range_of(request, etag, len(content))
    if asked is None or "," in asked:
        return Response(content, headers=own, media_type=media_type)
    first, _, last = asked.partition("=")[2].strip().partition("-")
    start = int(first) if first else max(0, len(content) - int(last))
    part = content[start : int(last) + 1 if first and last else None]
    own["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
    return Response(part, 206, own, media_type)


def _matches(if_none_match: str, etag: str) -> bool:
    sent = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return etag in sent or sent == ["*"]


def _range_of(request: Request, etag: str, size: int) -> str | None:
    """The header Range where it counts: with GET, in bytes, and of this content.

    Raises:
        Problem: 400 where it is malformed, 416 where it lies outside the file.
    """
    asked = request.headers.get("range", "")
    in_bytes = asked.partition("=")[0].strip().lower() == "bytes"
    if request.method != "GET" or not in_bytes or request.headers.get("if-range", etag) != etag:
        return None
    if not _RANGE.fullmatch(asked):
        raise _bad_range(400, "the header Range is malformed; send for example Range: bytes=1000-", size)
    for part in asked.partition("=")[2].split(","):
        first, _, last = part.strip().partition("-")
        if first and last and int(last) < int(first):
            raise _bad_range(400, f"the range {part.strip()} ends before it starts", size)
        if (int(first) if first else size - int(last)) >= size:
            raise _bad_range(416, f"the range {part.strip()} lies outside the file of {size} bytes", size)
    return asked


def _forget_range(request: Request) -> None:
    kept = [(name, value) for name, value in request.scope["headers"] if name != b"range"]
    request.scope["headers"] = kept


def _bad_range(status: int, detail: str, size: int) -> Problem:
    headers = {"Content-Range": f"bytes */{size}"} if status == 416 else None
    return Problem(status, "bad_range", "The range cannot be sent", detail, headers=headers)
