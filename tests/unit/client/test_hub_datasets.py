"""Data sets of the hub: the same request from both clients and the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from deft_client import AsyncDeftClient, DeftClient
from deft_client.cli import app
from tests.unit.client.scripted import Script, answer

SENT = {"id": "ds_1", "name": "n", "status": "processing", "sha256": "f"}
READY = SENT | {"status": "ready", "samples": 3, "hub": {"commit": "c"}}


def by_client(script: Script) -> None:
    with DeftClient(script.url, "deft_k") as client:
        sent = client.datasets.import_from_hub("org/set", split="train", data_dir="d", limit=3)
        assert client.datasets.wait(sent.id, poll=0).hub == {"commit": "c"}


def by_async_client(script: Script) -> None:
    async def use() -> None:
        async with AsyncDeftClient(script.url, "deft_k") as client:
            sent = await client.datasets.import_from_hub("org/set", split="train", data_dir="d", limit=3)
            assert (await client.datasets.wait(sent.id, poll=0)).hub == {"commit": "c"}

    asyncio.run(use())


def by_command(script: Script) -> None:
    command = ["datasets", "hub", "org/set", "--split", "train", "--data-dir", "d", "--limit", "3", "--json"]
    done = CliRunner().invoke(app, ["--url", script.url, *command])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["samples"] == 3


@pytest.mark.parametrize("ask", [by_client, by_async_client, by_command])
def test_a_data_set_is_named_and_waited_for(script: Script, ask: Callable[[Script], Any]) -> None:
    script.answers = [answer(201, SENT), answer(200, READY)]
    ask(script)
    method, path, headers, body = script.requests[0]
    assert (method, path) == ("POST", "/datasets")
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"]
    assert json.loads(body) == {"hub": "org/set", "split": "train", "data_dir": "d", "limit": 3}


def test_the_command_s_status_says_whether_it_was_read(script: Script) -> None:
    script.answers = [answer(201, SENT), answer(200, SENT | {"status": "invalid"})]
    done = CliRunner().invoke(app, ["--url", script.url, "datasets", "hub", "org/set", "--split", "train"])
    assert done.exit_code == 1
