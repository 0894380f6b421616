"""``deft run`` with endpoints: whoever runs it is the operator."""

import json
from pathlib import Path
from typing import Any

import pytest

from deft_engine.endpoints.hosts import HOSTS_VARIABLE
from deft_engine.local import run_job
from deft_engine.run import EXIT_FAILED, EXIT_SUCCEEDED, StopRequest
from tests.chat_server import Body, ChatServer, serving
from tests.unit.endpoints.stages import KEY, KEY_VARIABLE


def play(body: Body) -> str:
    return "Fine.\nRating: [[6]]" if body["messages"][0]["role"] == "system" else f"my key is {KEY}"


def spec_file(folder: Path, server: ChatServer) -> Path:
    (folder / "questions.jsonl").write_text('{"question_id": 1, "category": "math", "turns": ["1 + 1?"]}\n')
    asked = server.spec(api_key_env=KEY_VARIABLE)
    spec: dict[str, Any] = {"kind": "judge", "questions": str(folder / "questions.jsonl"), "judge": asked,
                            "model": {"endpoint": asked}}  # fmt: skip
    (folder / "spec.json").write_text(json.dumps(spec))
    return folder / "spec.json"


def test_a_judge_job_runs_in_a_folder_and_leaves_no_key_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(HOSTS_VARIABLE, raising=False)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    out = tmp_path / "out"
    with serving(reply=play) as server:
        assert run_job(spec_file(tmp_path, server), out, StopRequest(), as_json=True) == EXIT_SUCCEEDED
        assert {headers["Authorization"] for headers in server.seen_headers} == {f"Bearer {KEY}"}
    assert json.loads((out / "mt_bench.json").read_bytes())["total"] == {"value": 6.0, "n": 1, "unparsed": 0}
    said = capsys.readouterr()
    assert KEY not in said.out + said.err
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_a_list_of_hosts_that_is_none_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(HOSTS_VARIABLE, "http://a.test")
    with serving() as server:
        path = spec_file(tmp_path, server)
        assert run_job(path, tmp_path / "out", StopRequest(), as_json=True) == EXIT_FAILED
    assert "'http://a.test' is no host" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_hosts_that_the_caller_does_not_list_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(HOSTS_VARIABLE, "api.example.com")
    with serving() as server:
        status = run_job(spec_file(tmp_path, server), tmp_path / "out", StopRequest(), as_json=True)
        assert (status, server.bodies) == (EXIT_FAILED, [])
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["pointer"]) == ("endpoint_not_allowed", "/judge/url")
