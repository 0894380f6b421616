"""Imported generations: the same requests from both clients and the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.main import create_app
from deft_client import AsyncDeftClient, DeftClient
from deft_client.cli import app
from tests.unit.client.scripted import Script, answer

SENT = {"id": "gen_1", "name": "n", "dataset": "ds_1", "status": "processing", "sha256": "f"}
READY = SENT | {"status": "ready", "answers": 2, "rejected": 1, "unanswered": 0}
LEDGER = {"data": [{"line": 3, "code": "unknown_sample", "detail": "no such"}], "has_more": False}


def nothing(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(204)
    handler.end_headers()


def sync(script: Script, name: str, *arguments: Any, **more: Any) -> Any:
    with DeftClient(script.url, "deft_k") as client:
        return getattr(client.generations, name)(*arguments, **more)


def asynchronous(script: Script, name: str, *arguments: Any, **more: Any) -> Any:
    async def use() -> Any:
        async with AsyncDeftClient(script.url, "deft_k") as client:
            return await getattr(client.generations, name)(*arguments, **more)

    return asyncio.run(use())


@pytest.mark.parametrize("ask", [sync, asynchronous])
def test_answers_are_sent_waited_for_and_removed(
    script: Script, tmp_path: Path, ask: Callable[..., Any]
) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"sample_id": "s1", "response": "x"}\n')
    script.answers = [answer(201, SENT), answer(200, SENT), answer(200, READY), answer(200, LEDGER)]
    script.answers += [answer(200, {"data": [READY]}), nothing]
    sent: list[int] = []
    assert ask(script, "upload", path, dataset="ds_1", on_bytes=sent.append).id == "gen_1"
    assert ask(script, "wait", "gen_1", poll=0).answers == 2
    assert ask(script, "validation", "gen_1", after="2").data[0].code == "unknown_sample"
    assert ask(script, "list", limit=5).data[0].dataset == "ds_1"
    assert ask(script, "delete", "gen_1") is None
    assert sum(sent) == path.stat().st_size
    method, address, headers, body = script.requests[0]
    assert (method, address) == ("POST", "/generations")
    assert headers["Idempotency-Key"]
    assert b'name="dataset"\r\n\r\nds_1\r\n' in body
    assert b'"response": "x"' in body
    asked = [(method, address) for method, address, _, _ in script.requests[1:]]
    assert asked == [
        ("GET", "/generations/gen_1"),
        ("GET", "/generations/gen_1"),
        ("GET", "/generations/gen_1/validation?after=2"),
        ("GET", "/generations?limit=5"),
        ("DELETE", "/generations/gen_1"),
    ]
    paths = create_app().openapi()["paths"]
    assert {"get", "delete"} <= paths["/generations/{generations_id}"].keys()
    assert {"get", "post"} <= paths["/generations"].keys()


def test_the_command_line_imports_and_says_by_its_status_whether_it_worked(
    script: Script, tmp_path: Path
) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text("{}\n")
    command = ["--url", script.url, "generations", "import", str(path), "--dataset", "ds_1", "--json"]
    script.answers = [answer(201, SENT), answer(200, READY)]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, json.loads(done.stdout)["answers"]) == (0, 2)
    script.answers = [answer(201, SENT), answer(200, SENT | {"status": "invalid"})]
    assert CliRunner().invoke(app, command).exit_code == 1
    for name, shown in (("show", READY), ("validation", LEDGER)):
        script.answers = [answer(200, shown)]
        done = CliRunner().invoke(app, ["--url", script.url, "generations", name, "gen_1", "--json"])
        assert done.exit_code == 0, done.output
    script.answers = [answer(200, {"data": [READY], "has_more": False})]
    done = CliRunner().invoke(app, ["--url", script.url, "generations", "list", "--json"])
    assert json.loads(done.stdout)[0]["id"] == "gen_1"
