"""Experiments: the same requests from both clients and the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.main import create_app
from deft_client import AsyncDeftClient, DeftClient
from deft_client.cli import app, output
from deft_client.errors import WaitTimeout
from tests.unit.client.scripted import Script, answer

EXPERIMENT = {"id": "exp_1", "name": "n", "status": "queued", "created_at": "2026-01-01T00:00:00Z",
              "arms": [{"name": "DPO", "jobs": [{"id": "job_1", "seed": 1, "status": "queued"}]}],
              }  # fmt: skip
FIGURE = {"value": 61.234, "interval": [60.0, 62.5], "n": 24, "seeds": 3, "difference": None}
COMPARED = {**FIGURE, "difference": {"value": 1.5, "p_corrected": 0.012}}
TABLE = {
    "arms": [{"name": "DPO", "total": {"bleu": FIGURE}}, {"name": "DEFT-DPO", "total": {"bleu": COMPARED}}]
}
CALLS = [
    ("retrieve", "show", ["exp_1"], "GET", "/experiments/{experiment_id}", EXPERIMENT),
    ("cancel", "cancel", ["exp_1"], "POST", "/experiments/{experiment_id}/cancel", EXPERIMENT),
    ("results", "results", ["exp_1"], "GET", "/experiments/{experiment_id}/results", TABLE),
]


def plain(value: Any) -> Any:
    return value if isinstance(value, dict) else value.model_dump(mode="json")


def by_client(script: Script, name: str, command: str, arguments: list[Any]) -> Any:
    with DeftClient(script.url, "deft_k") as client:
        return plain(getattr(client.experiments, name)(*arguments))


def by_async_client(script: Script, name: str, command: str, arguments: list[Any]) -> Any:
    async def use() -> Any:
        async with AsyncDeftClient(script.url, "deft_k") as client:
            return plain(await getattr(client.experiments, name)(*arguments))

    return asyncio.run(use())


def by_command(script: Script, name: str, command: str, arguments: list[Any]) -> Any:
    done = CliRunner().invoke(app, ["--url", script.url, "experiments", command, *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize("ask", [by_client, by_async_client, by_command])
@pytest.mark.parametrize(("name", "command", "arguments", "method", "address", "shown"), CALLS)
def test_an_experiment_is_read_and_cancelled(
    script: Script, ask: Callable[..., Any], name: str, command: str, arguments: list[str], method: str,
    address: str, shown: dict[str, Any],
) -> None:  # fmt: skip
    script.answers = [answer(200, shown)]
    found = ask(script, name, command, arguments)
    assert found["arms"][0]["name"] == "DPO"
    assert script.requests[0][:2] == (method, address.format(experiment_id="exp_1"))
    assert method.lower() in create_app().openapi()["paths"][address]


FILES = {
    "results.csv": "text/csv; charset=utf-8",
    "results.tex": "application/x-tex",
    "report.html": "text/html",
}


@pytest.mark.parametrize("file", FILES)
def test_results_come_as_files(script: Script, file: str, tmp_path: Path) -> None:
    body, address = b"[1, 2]\xff", "/experiments/{experiment_id}/" + file
    script.answers = [answer(200, body, {"Content-Type": FILES[file]})] * 3

    with DeftClient(script.url, "deft_k") as client:
        assert client.experiments.export("exp_1", file) == body

    async def asked() -> bytes:
        async with AsyncDeftClient(script.url, "deft_k") as client:
            return await client.experiments.export("exp_1", file)

    assert asyncio.run(asked()) == body
    command = ["--url", script.url, "experiments", "download", "exp_1", file, str(tmp_path / "found")]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert (tmp_path / "found").read_bytes() == body
    assert {path for _, path, *_ in script.requests} == {f"/experiments/exp_1/{file}"}
    assert "get" in create_app().openapi()["paths"][address]


def test_a_report_without_cases_is_asked_for(script: Script, tmp_path: Path) -> None:
    script.answers = [answer(200, b"<p>", {"Content-Type": "text/html"})]
    command = ["--url", script.url, "experiments", "download", "--no-cases", "exp_1", "report.html"]
    assert CliRunner().invoke(app, [*command, str(tmp_path / "found")]).exit_code == 0
    assert script.requests[0][1] == "/experiments/exp_1/report.html?cases=false"


@pytest.mark.parametrize("ask", [by_client, by_async_client])
def test_an_experiment_is_sent_with_its_own_key(script: Script, ask: Callable[..., Any]) -> None:
    script.answers = [answer(201, EXPERIMENT)]
    ask(script, "create", "", [{"preset": "paper-table-3"}])
    method, path, headers, body = script.requests[0]
    assert (method, path, json.loads(body)) == ("POST", "/experiments", {"preset": "paper-table-3"})
    assert headers["Idempotency-Key"]


def test_a_file_is_sent_and_the_table_is_shown(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output.console, "width", 140)
    script.answers = [answer(201, EXPERIMENT), answer(200, TABLE), answer(200, {"data": [EXPERIMENT]})]
    (tmp_path / "e.yaml").write_text("preset: paper-table-3")
    run = CliRunner().invoke
    assert run(app, ["--url", script.url, "experiments", "create", str(tmp_path / "e.yaml")]).exit_code == 0
    assert json.loads(script.requests[0][3]) == {"preset": "paper-table-3"}
    shown = run(app, ["--url", script.url, "experiments", "results", "exp_1"]).output
    assert "60.00 to 62.50" in shown
    assert "0.012" in shown
    assert "exp_1" in run(app, ["--url", script.url, "experiments", "list"]).output


def test_waiting_ends_with_the_experiment_or_the_time(script: Script) -> None:
    script.answers = [
        answer(200, EXPERIMENT),
        answer(200, {**EXPERIMENT, "status": "failed"}),
        answer(200, EXPERIMENT),
    ]
    with DeftClient(script.url) as client:
        assert client.experiments.wait("exp_1", poll=0).status == "failed"
        with pytest.raises(WaitTimeout, match="still queued"):
            client.experiments.wait("exp_1", timeout=-1)
