"""Every command can speak JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from deft_client.cli import app
from tests.unit.client.scripted import Script, answer

SAMPLE = {
    "id": "s1",
    "subset": "helpful",
    "prompt": [{"role": "user", "content": "Why [b]?"}],
    "responses": [{"text": "Because.", "reward": 1.0}, {"text": "No.", "reward": None}],
    "line": 1,
}


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_every_command_that_answers_has_the_option() -> None:
    without = [
        path
        for path, command in commands(get_command(app))
        if not any("--json" in parameter.opts for parameter in command.params)
    ]
    assert without == [("up",)]  # it answers nothing: service.json says where it is


def test_samples_are_json_or_a_table(script: Script) -> None:
    page = {"object": "list", "data": [SAMPLE], "has_more": False}
    script.answers = [answer(200, page), answer(200, page)]
    command = ["--url", script.url, "datasets", "samples", "ds_1"]
    assert json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout) == [SAMPLE]
    shown = CliRunner().invoke(app, command).stdout
    assert all(part in shown for part in ("s1", "Why [b]?", "Because.", "No."))


def test_preferences_are_lines_or_one_array(script: Script) -> None:
    row = json.dumps({"prompt": "q", "chosen": "a", "rejected": "b"}).encode() + b"\n"
    script.answers = [answer(200, row * 2, {"Content-Type": "application/jsonl"})] * 2
    command = ["--url", script.url, "studies", "preferences", "stu_1"]
    assert len(json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)) == 2
    lines = CliRunner().invoke(app, command).stdout.splitlines()
    assert [json.loads(line)["chosen"] for line in lines] == ["a", "a"]
