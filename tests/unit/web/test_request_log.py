"""What is logged of a request, and what never is."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from app.request_log import RequestLog


def logged_paths(*addresses: str) -> list[str]:
    app = Starlette()
    app.add_route("/{path:path}", lambda request: PlainTextResponse("hello"))
    client = TestClient(RequestLog(app))
    with capture_logs() as logs:
        for address in addresses:
            client.get(address)
    return [entry["path"] for entry in logs]


def test_neither_the_query_nor_a_personal_links_token_is_logged() -> None:
    addresses = ("/jobs?key=s3cret", "/annotate/s3cret", "/annotate/s3%0Acret", "/annotate", "/x/annotate/y")
    found = logged_paths(*addresses)
    assert found == ["/jobs", "/annotate/...", "/annotate/...", "/annotate", "/x/annotate/y"]


def test_probes_are_not_logged() -> None:
    assert logged_paths("/healthz", "/readyz", "/metrics") == []
