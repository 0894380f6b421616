"""A body sent as JSON that may be a request or a file: the two are told apart by what is in it."""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.types import Message

from app.errors import FieldError, invalid_request

_MOST_BYTES = 2**16  # of a request


async def request_object(request: Request) -> tuple[bytes | None, Request]:
    """A body that is one JSON object of a request's size; or None, and the request with its body unread.

    An array, several lines, or more than 64 KiB are a file, whatever the client calls it.

    Raises:
        Problem: 422 for a line that is neither a request nor rows.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return None, request
    body, more = b"", True
    while more and len(body) <= _MOST_BYTES:
        message = await request.receive()
        body += message.get("body", b"")
        more = message["type"] == "http.request" and message.get("more_body", False)
    if not more and len(body) <= _MOST_BYTES and _is_request(body):
        return body, request
    return None, _with_body(request, body, more)


def _is_request(body: bytes) -> bool:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        given = None
        if b"\n" in body.strip():
            return False
    if isinstance(given, dict | list):
        return isinstance(given, dict)
    told = "the body is no JSON object and no array of rows; a file may also be sent as a form"
    raise invalid_request([FieldError(pointer="", code="invalid_json", detail=told)])


def _with_body(request: Request, read: bytes, more: bool) -> Request:
    """The request whose body begins with what was read of it."""
    first: list[Message] = [{"type": "http.request", "body": read, "more_body": more}]

    async def receive() -> Message:
        return first.pop() if first else await request.receive()

    return Request(request.scope, receive)
