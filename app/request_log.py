"""ASGI middleware around every request: its id, its log line, its measures, and the answer to a defect."""

from __future__ import annotations

import re
import time

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import unexpected_response
from app.ids import new_id
from app.metrics import observe_request

log = structlog.get_logger()

_QUIET_PATHS = {"/healthz", "/readyz", "/metrics"}
_PERSONAL_LINK = re.compile(r"(?<=^/annotate/).+", re.DOTALL)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestLog:
    """Gives each request an id, logs and measures it, answers what nobody caught by 500.

    The address is logged without its query, which may hold what should not be kept, and without the token of
    a rater's personal link, which logs them in.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["deft.request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        path = _PERSONAL_LINK.sub("...", scope["path"])
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            log.exception("request_failed", method=scope["method"], path=path)
            if status:  # the answer is under way: cutting the connection is all that is left
                raise
            await unexpected_response(Request(scope))(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - started
            observe_request(scope, status, seconds)
            if path not in _QUIET_PATHS:
                key_id = scope.get("state", {}).get("key_id")
                milliseconds = round(1000 * seconds, 1)
                log.info(
                    "request",
                    method=scope["method"],
                    path=path,
                    status=status,
                    ms=milliseconds,
                    key=key_id,
                )


def _request_id(scope: Scope) -> str:
    """The caller's own ``X-Request-Id`` where it is harmless, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(given := value.decode("latin-1")):
            return str(given)
    return new_id("req")
