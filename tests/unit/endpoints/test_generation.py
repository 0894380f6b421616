import json
import random
from pathlib import Path

import pytest

from deft_engine.data.generations import read_generations
from deft_engine.endpoints.hosts import HOSTS_VARIABLE
from deft_engine.run import EXIT_FAILED, EXIT_SUCCEEDED, StopRequest, execute
from tests.chat_server import FAULTS, serving
from tests.unit.endpoints.stages import (
    GENERATION,
    KEY,
    KEY_VARIABLE,
    endpoint,
    error_of,
    result_of,
    samples,
    stage_folder,
)

pytestmark = pytest.mark.usefixtures("allowed")


def test_an_endpoint_s_answers_are_generations_in_the_samples_order(tmp_path: Path) -> None:
    with serving() as server:
        folder = stage_folder(tmp_path / "run", "generate", GENERATION, samples(9), endpoint(server))
        assert execute(folder, StopRequest()) == EXIT_SUCCEEDED
    found = list(read_generations(folder / "out" / "generations.jsonl"))
    assert [(g.sample_id, g.subset, g.response, g.reference) for g in found] == [
        (f"s{n}", "odd" if n % 2 else "even", f"answer to question {n}", f"best {n}") for n in range(9)
    ]
    assert all(body["temperature"] == 0 and body["max_tokens"] == 16 for body in server.bodies)
    assert server.bodies[0]["messages"][0] == {"role": "system", "content": "Be kind."}
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert manifest["result"]["endpoint"] == {
        "tokens": server.tokens, "requests": 9, "kept": 0, "faults": 0
    }  # fmt: skip
    assert manifest["inputs"]["endpoint"] == f"endpoint:{server.url}#played"


def test_a_run_that_failed_goes_on_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    with serving(fault=lambda number: "500" if number > 5 else None) as server:
        folder = stage_folder(tmp_path / "run", "generate", GENERATION, samples(12), endpoint(server))
        assert execute(folder, StopRequest()) == EXIT_FAILED
        assert error_of(folder)["code"] == "endpoint_server_error"
        assert error_of(folder)["retryable"]
        server.fault = lambda number: None
        stage_folder(folder, "generate", GENERATION, samples(12), endpoint(server))
        assert execute(folder, StopRequest()) == EXIT_SUCCEEDED
        assert list(server.answered.values()) == [1] * 12
        result = result_of(folder)["endpoint"]
    assert (result["requests"], result["kept"]) == (7, 5)
    assert result["tokens"] == server.tokens


def test_a_chosen_number_of_samples_is_the_same_choice_as_for_a_local_model(tmp_path: Path) -> None:
    with serving() as server:
        spec = GENERATION.model_copy(update={"samples": 4})
        folder = stage_folder(tmp_path / "run", "generate", spec, samples(30), endpoint(server))
        assert execute(folder, StopRequest()) == EXIT_SUCCEEDED
    expected = sorted(random.Random(1).sample(range(30), 4))
    found = [g.sample_id for g in read_generations(folder / "out" / "generations.jsonl")]
    assert found == [f"s{n}" for n in expected]


@pytest.mark.parametrize("fault", [*FAULTS, None])
def test_the_key_is_in_the_request_and_nowhere_else(fault: str | None, tmp_path: Path) -> None:
    """Not even where the server sends it back, in an answer or in an error."""
    with serving(reply=lambda body: f"your key is {KEY}", fault=lambda number: fault) as server:
        asked = endpoint(server, timeout=0.05 if fault == "slow" else 30.0)
        folder = stage_folder(tmp_path / "run", "generate", GENERATION, samples(2), asked)
        execute(folder, StopRequest())
        assert {headers["Authorization"] for headers in server.seen_headers} == {f"Bearer {KEY}"}
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    for path in written:
        assert KEY.encode() not in path.read_bytes(), path


def test_an_error_that_quotes_the_key_is_redacted(tmp_path: Path) -> None:
    with serving(fault=lambda number: "429") as server:
        server.error = {"error": {"code": "insufficient_quota", "message": f"no credit for {KEY}"}}
        folder = stage_folder(tmp_path / "run", "generate", GENERATION, samples(1), endpoint(server))
        assert execute(folder, StopRequest()) == EXIT_FAILED
    error = error_of(folder)
    assert error["code"] == "endpoint_refused"
    assert "no credit for [key]" in error["message"]


@pytest.mark.parametrize("value", ["", "two\nlines"])
def test_a_key_that_is_not_there_is_told_by_its_variable(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, value)
    with serving() as server:
        folder = stage_folder(tmp_path / "run", "generate", GENERATION, samples(1), endpoint(server))
        assert execute(folder, StopRequest()) == EXIT_FAILED
        assert server.bodies == []
    error = error_of(folder)
    assert error["code"] == "endpoint_key_missing"
    assert KEY_VARIABLE in error["message"]
    assert "two" not in error["message"]


def test_without_the_setting_no_host_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOSTS_VARIABLE)
    with serving() as server:
        folder = stage_folder(tmp_path / "run", "generate", GENERATION, samples(1), endpoint(server))
        assert execute(folder, StopRequest()) == EXIT_FAILED
        assert server.bodies == []
    assert error_of(folder)["code"] == "endpoint_not_allowed"


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    with serving() as other, serving(fault=lambda number: "302") as server:
        server.headers = {"Location": f"{other.url}/chat/completions"}
        folder = stage_folder(tmp_path / "run", "generate", GENERATION, samples(1), endpoint(server))
        assert execute(folder, StopRequest()) == EXIT_FAILED
        assert (len(server.bodies), other.bodies) == (1, [])
    assert error_of(folder)["code"] == "endpoint_redirect"
