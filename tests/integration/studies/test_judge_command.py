"""``deft studies judge``: a played endpoint judges a served study."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from deft_client.cli import app
from deft_client.errors import ConnectionFailed
from tests.chat_server import Body, ChatServer
from tests.chat_server import serving as played
from tests.serving import serving
from tests.study_world import Service


def prefers_b_unless_second(body: Body) -> str:
    """Says b where it stands first, and on the third prompt nothing; on the second it is misled by order."""
    text = body["messages"][1]["content"]
    first, _ = text.split("# Second answer")
    if "Question 2 of" in text:
        return "I cannot say."
    if "Question 1 of" in text:
        return "First."
    return "The better one is the first." if "system-b says" in first else "SECOND"


def judge(address: str, service: Service, study: str, endpoint: ChatServer) -> list[str]:
    key = service.researcher["Authorization"].removeprefix("Bearer ")
    return [
        "--url", address, "--key", key, "studies", "judge", study, "--endpoint", endpoint.url,
        "--model", "played", "--json",
    ]  # fmt: skip


def test_a_model_judges_each_pair_in_both_orders(service: Service) -> None:
    study = service.study({"x": 5}, criteria="Which is kinder?")
    faults = {2: "429", 5: "500"}
    with serving() as address, played(reply=prefers_b_unless_second, fault=faults.get) as endpoint:
        done = CliRunner().invoke(app, judge(address, service, study["id"], endpoint))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"object": "study.judge", "judge": "played", "pairs": 4}
    assert "1 pairs without a clear verdict" in done.stderr
    assert sum(endpoint.answered.values()) == 10
    assert all("Which is kinder?" in body["messages"][0]["content"] for body in endpoint.bodies)
    assert not any("secret-method" in json.dumps(body) for body in endpoint.bodies)
    found = service.http.get(f"/studies/{study['id']}/results", headers=service.researcher).json()
    (one,) = found["judges"]
    assert (one["win"]["count"], one["tie"]["count"], one["lose"]["count"]) == (0, 1, 3)
    assert (one["consistent"]["count"], one["consistent"]["n"]) == (3, 4)


def test_an_endpoint_that_refuses_is_named(service: Service) -> None:
    study = service.study({"x": 1})
    with serving() as address, played(fault=lambda _: "json") as endpoint:
        done = CliRunner().invoke(app, judge(address, service, study["id"], endpoint))
    assert isinstance(done.exception, ConnectionFailed)  # which the command says in a line
    assert "the judge's endpoint" in str(done.exception)
