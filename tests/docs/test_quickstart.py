"""docs/quickstart.md: its requests are valid by the OpenAPI, and (slow) its commands and its program run."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft202012Validator

from app.main import create_app
from deft_engine.experiments.arms import jobs_of
from deft_engine.experiments.spec import ExperimentSpec
from deft_engine.specs import job_spec_adapter
from tests.conftest import ROOT
from tests.whole_service import WholeService

PAGE = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
COMMANDS = "\n".join(re.findall(r"```bash\n(.*?)```", PAGE, re.S))
(PROGRAM,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
OPENAPI = create_app().openapi()


class Request(NamedTuple):
    method: str
    path: str
    body: Any


def requests() -> list[Request]:
    """Every call of the page; shell variables stand as they are."""
    commands = re.sub(r"\\\n", " ", COMMANDS)
    found = []
    for call in re.findall(r"\bapi( [^|]*?\$DEFT/(?:[^'|)\n]|'[^']*')*)", commands):
        words = shlex.split(call)
        (address,) = (word for word in words if word.startswith("$DEFT/"))
        body = json.loads(words[words.index("-d") + 1]) if "-d" in words else None
        posts = body is not None or "-F" in words or "POST" in words
        path = address.removeprefix("$DEFT").partition("?")[0]
        found.append(Request("post" if posts else "get", path, body))
    return found


def operation(request: Request) -> dict[str, Any]:
    fits = [
        path
        for path, methods in OPENAPI["paths"].items()
        if request.method in methods and re.fullmatch(re.sub(r"\{name\}", ".+", _open(path)), request.path)
    ]
    assert fits, f"{request.method} {request.path} is not in the OpenAPI"
    found: dict[str, Any] = OPENAPI["paths"][fits[0]][request.method]
    return found


def _open(path: str) -> str:
    return re.sub(r"\{(?!name)\w+\}", "[^/]+", path)


def test_every_call_of_the_page_is_seen() -> None:
    assert len(requests()) == len(re.findall(r"\$DEFT/(?!jobs/\$deft/dashboard)", COMMANDS))


@pytest.mark.parametrize("request_", requests(), ids=lambda r: f"{r.method} {r.path}")
def test_the_call_exists_and_its_body_is_valid(request_: Request) -> None:
    declared = operation(request_)
    if request_.body is None:
        return
    schema = declared["requestBody"]["content"]["application/json"]["schema"]
    whole = {**schema, "components": OPENAPI["components"]}
    errors = [error.message for error in Draft202012Validator(whole).iter_errors(request_.body)]
    assert errors == []
    if request_.path == "/jobs":
        job_spec_adapter.validate_python(request_.body)
    if request_.path == "/experiments":
        assert len(jobs_of(ExperimentSpec.model_validate(request_.body))) == 4


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_page_runs_as_it_stands(whole_service: WholeService, tmp_path: Path) -> None:
    script = COMMANDS.replace("http://127.0.0.1:8000", whole_service.url).replace(
        "~/.deft", str(whole_service.home)
    )
    script = script.replace(". .venv/bin/activate\n", "set -eu -o pipefail\n")
    results = run(["bash", "-c", script], tmp_path, {}).splitlines()[-1]
    assert json.loads(results)["total"]["tie"]["count"] == 1
    assert (tmp_path / "model.safetensors").stat().st_size > 100_000
    printed = run(["python", "-c", PROGRAM], tmp_path, {"DEFT": whole_service.url, "KEY": whole_service.key})
    total = ast.literal_eval(printed.splitlines()[-1])
    assert total["tie"]["count"] == total["n"] > 0
    assert (tmp_path / "aligned-model" / "config.json").exists()


def run(command: list[str], folder: Path, variables: dict[str, str]) -> str:
    finished = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **variables, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return finished.stdout
