"""What a researcher does to a study: the same requests from both clients and the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from app.main import create_app
from deft_client import AsyncDeftClient, DeftClient
from deft_client.cli import app
from tests.unit.client.scripted import Script, answer

RATER = {"id": "ann_1", "name": "Ada", "subsets": ["s"], "key_id": "key_1", "revoked": True}
STUDY = {"id": "stu_1", "name": "n", "a": "job_a", "b": "job_b", "status": "closed"}
LINK = {"id": "ann_1", "name": "Ada", "link": "http://here/annotate/x"}
RATER_PATH = "/studies/{study_id}/annotators/{annotator_id}"

CALLS = [
    ("renew_link", ["stu_1", "ann_1"], "POST", f"{RATER_PATH}/link", LINK),
    ("revoke_annotator", ["stu_1", "ann_1"], "DELETE", RATER_PATH, RATER),
    ("unblind", ["stu_1"], "POST", "/studies/{study_id}/unblind", STUDY),
]


def by_client(script: Script, name: str, arguments: list[str]) -> Any:
    with DeftClient(script.url, "deft_k") as client:
        return getattr(client.studies, name)(*arguments).model_dump(mode="json")


def by_async_client(script: Script, name: str, arguments: list[str]) -> Any:
    async def use() -> Any:
        async with AsyncDeftClient(script.url, "deft_k") as client:
            return (await getattr(client.studies, name)(*arguments)).model_dump(mode="json")

    return asyncio.run(use())


def by_command(script: Script, name: str, arguments: list[str]) -> Any:
    command = [
        "--url",
        script.url,
        "--key",
        "deft_k",
        "studies",
        name.replace("_", "-"),
        *arguments,
        "--json",
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize("ask", [by_client, by_async_client, by_command])
@pytest.mark.parametrize(("name", "arguments", "method", "address", "shown"), CALLS)
def test_a_study_s_access_is_managed(
    script: Script, ask: Callable[..., Any], name: str, arguments: list[str], method: str, address: str,
    shown: dict[str, Any],
) -> None:  # fmt: skip
    script.answers = [answer(200, shown)]
    assert shown.items() <= ask(script, name, arguments).items()
    (request,) = script.requests
    assert request[:2] == (method, address.format(study_id="stu_1", annotator_id="ann_1"))
    assert method.lower() in create_app().openapi()["paths"][address]


def test_the_raters_of_a_study_are_listed(script: Script) -> None:
    listed = {"object": "list", "data": [{**RATER, "done": 3, "total": 5}], "has_more": False}
    script.answers = [answer(200, listed)] * 3

    async def use() -> Any:
        async with AsyncDeftClient(script.url) as client:
            return await client.studies.annotators("stu_1")

    with DeftClient(script.url) as client:
        (rater,) = client.studies.annotators("stu_1")
    assert asyncio.run(use()) == [rater]
    assert (rater.id, rater.revoked, rater.done, rater.total) == ("ann_1", True, 3, 5)
    shown = CliRunner().invoke(app, ["--url", script.url, "studies", "annotators", "stu_1"])
    assert "ann_1" in shown.output
    assert {path for _, path, _, _ in script.requests} == {"/studies/stu_1/annotators"}


PAIR = {"id": "asg_2", "prompt": [], "left": "l", "right": "r", "criteria": "c", "done": 0, "total": 2}


def test_a_rater_s_requests(script: Script) -> None:
    told = [answer(200, PAIR), answer(200, {"id": "asg_1"}), answer(204, b""), *[answer(200, {})] * 3]
    script.answers = told * 2

    def ask(studies: Any) -> list[Any]:
        return [
            studies.next_assignment("stu_1", after="asg_1"),
            studies.last_assignment("stu_1"),
            studies.last_assignment("stu_1"),
            studies.vote("asg_2", "tie", harmful=True, seconds=1.5),
            studies.skip("asg_2", "why"),
            studies.undo("asg_2"),
        ]

    async def use() -> list[Any]:
        async with AsyncDeftClient(script.url) as client:
            return [await asked for asked in ask(client.studies)]

    with DeftClient(script.url) as client:
        given = ask(client.studies)
    assert given == asyncio.run(use())
    assert (given[0].id, given[1:]) == ("asg_2", ["asg_1", None, None, None, None])
    sent = [(method, path, json.loads(body) if body else None) for method, path, _, body in script.requests]
    assert (
        sent[:6]
        == sent[6:]
        == [
            ("POST", "/studies/stu_1/assignments:next?after=asg_1", None),
            ("GET", "/studies/stu_1/assignments:last", None),
            ("GET", "/studies/stu_1/assignments:last", None),
            ("POST", "/assignments/asg_2", {"choice": "tie", "harmful": True, "seconds": 1.5}),
            ("POST", "/assignments/asg_2/skip", {"reason": "why", "harmful": False}),
            ("POST", "/assignments/asg_2/undo", None),
        ]
    )


ESTIMATE = {"kind": "align", "spec": {}, "stages": [], "steps": 0, "tokens": 0, "memory_bytes": None,
            "seconds": 0.0, "complete": True, "assumptions": [], "warnings": []}  # fmt: skip


def test_an_estimate_may_be_of_running_everything_anew(script: Script, tmp_path: Any) -> None:
    script.answers = [answer(200, ESTIMATE)] * 3

    async def use() -> None:
        async with AsyncDeftClient(script.url) as client:
            await client.jobs.estimate({"kind": "align"}, reuse=False)

    with DeftClient(script.url) as client:
        client.jobs.estimate({"kind": "align"}, reuse=False)
    asyncio.run(use())
    (tmp_path / "job.yaml").write_text("kind: align")
    command = ["--url", script.url, "jobs", "estimate", str(tmp_path / "job.yaml"), "--no-reuse"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert {path for _, path, _, _ in script.requests} == {"/jobs?dry_run=true&reuse=false"}
