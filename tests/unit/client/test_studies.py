"""What a researcher does to a study: the same requests from both clients and the command line."""

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
from deft_client.cli import app
from deft_client.study_models import StudyVerdict
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


VOTE = {"id": "asg_2", "choice": "tie", "feedback": {"agreed": False, "better": "left"}}


def test_a_rater_s_requests(script: Script) -> None:
    told = [answer(200, PAIR), answer(200, {"id": "asg_1"}), answer(204, b""), *[answer(200, VOTE)] * 3]
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
    assert (given[0].id, given[1:3], given[4:]) == ("asg_2", ["asg_1", None], [None, None])
    assert (given[3].choice, given[3].feedback.better) == ("tie", "left")
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


PLAN = {
    "systems": ["job_a", "job_b"], "subsets": {"s": 9}, "votes": 18, "assumptions": [],
    "power": {
        "win_rate": 0.7, "ties": 0.1, "alpha": 0.05, "power": 0.8, "pairs_needed": 60,
        "total": {"pairs": 9, "power": 0.2, "win_rate": 0.95}, "subsets": {},
    },
}  # fmt: skip
GOLD = [{"prompt": "2 + 2?", "better": "4", "worse": "5"}]
RIGOROUS = {
    "name": "n", "systems": ["job_a", "job_b"], "per_subset": 9, "protocol": "rigorous", "raters_per_pair": 2,
    "repeats": 0.1, "gold": GOLD, "tutorial": 1,
}  # fmt: skip


def test_a_design_is_sent_and_planned_alike(script: Script, tmp_path: Any) -> None:
    script.answers = [answer(201, STUDY), answer(200, PLAN)] * 3

    async def use() -> None:
        async with AsyncDeftClient(script.url) as client:
            assert (await client.studies.create(**RIGOROUS)).a == "job_a"
            assert (await client.studies.plan(win_rate=0.7, ties=0.1, **RIGOROUS)).power.pairs_needed == 60

    with DeftClient(script.url) as client:
        assert client.studies.create(**RIGOROUS).b == "job_b"
        assert client.studies.plan(win_rate=0.7, ties=0.1, **RIGOROUS).power.total.win_rate == 0.95
    asyncio.run(use())
    (tmp_path / "gold.json").write_text(json.dumps(GOLD))
    command = [
        "--url", script.url, "studies", "create", "job_a", "job_b", "--name", "n", "--per-subset", "9",
        "--protocol", "rigorous", "--raters-per-pair", "2", "--repeats", "0.1", "--tutorial", "1",
        "--gold", str(tmp_path / "gold.json"), "--json",
    ]  # fmt: skip
    assert CliRunner().invoke(app, command).exit_code == 0
    planned = CliRunner().invoke(app, [*command, "--dry-run", "--win-rate", "0.7", "--ties", "0.1"])
    assert json.loads(planned.stdout)["power"]["pairs_needed"] == 60
    assert [path for _, path, _, _ in script.requests] == [
        "/studies", "/studies?dry_run=true&win_rate=0.7&ties=0.1",
    ] * 3  # fmt: skip
    assert all(json.loads(body) == RIGOROUS for _, _, _, body in script.requests)


def test_a_rater_s_votes_are_excluded(script: Script) -> None:
    script.answers = [answer(200, {**RATER, "excluded": True})] * 3

    async def use() -> None:
        async with AsyncDeftClient(script.url) as client:
            assert (await client.studies.revoke_annotator("stu_1", "ann_1", votes="exclude")).excluded

    with DeftClient(script.url) as client:
        assert client.studies.revoke_annotator("stu_1", "ann_1", votes="exclude").excluded
    asyncio.run(use())
    command = ["--url", script.url, "studies", "revoke-annotator", "stu_1", "ann_1", "--exclude-votes"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert {path for _, path, _, _ in script.requests} == {"/studies/stu_1/annotators/ann_1?votes=exclude"}


def test_the_tutorial_s_feedback_is_read(script: Script) -> None:
    told = {"id": "asg_1", "choice": "left", "feedback": {"agreed": False, "better": "right"}}
    script.answers = [answer(200, told), answer(200, {"id": "asg_2", "choice": "tie"})]
    with DeftClient(script.url) as client:
        feedback = client.studies.vote("asg_1", "left").feedback
        assert feedback is not None
        assert (feedback.agreed, feedback.better) == (False, "right")
        assert client.studies.vote("asg_2", "tie").feedback is None


LOOK = {
    "number": 1, "of": 2, "wins": 9, "ties": 0, "losses": 1, "p_value": 0.02, "alpha": 0.03, "crossed": True,
}  # fmt: skip


@pytest.mark.parametrize("ask", [by_client, by_async_client, by_command])
def test_a_planned_look_is_taken(script: Script, ask: Callable[..., Any]) -> None:
    script.answers = [answer(201, LOOK)]
    assert ask(script, "look", ["stu_1"]) == LOOK
    assert script.requests[0][:2] == ("POST", "/studies/stu_1/looks")
    assert "post" in create_app().openapi()["paths"]["/studies/{study_id}/looks"]


def test_votes_come_as_a_file(script: Script, tmp_path: Path) -> None:
    script.answers = [answer(200, b"vote\r\n1\r\n", {"Content-Type": "text/csv; charset=utf-8"})] * 3

    async def use() -> bytes:
        async with AsyncDeftClient(script.url) as client:
            return await client.studies.export("stu_1")

    with DeftClient(script.url) as client:
        assert client.studies.export("stu_1") == asyncio.run(use()) == b"vote\r\n1\r\n"
    command = ["--url", script.url, "studies", "download", "stu_1", str(tmp_path / "votes.csv")]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert (tmp_path / "votes.csv").read_bytes() == b"vote\r\n1\r\n"
    assert {path for _, path, _, _ in script.requests} == {"/studies/stu_1/export.csv"}
    assert "get" in create_app().openapi()["paths"]["/studies/{study_id}/export.csv"]


def test_a_study_without_preferences_has_an_empty_list(script: Script) -> None:
    script.answers = [answer(200, b"", {"Content-Type": "application/jsonl"})]
    with DeftClient(script.url) as client:
        assert client.studies.preferences("stu_1") == []


def test_preferences_are_read_line_by_line(script: Script) -> None:
    rows = [{"id": "x-1", "chosen": "yes\u2028"}, {"id": "x-2", "chosen": "no"}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    script.answers = [answer(200, lines, {"Content-Type": "application/jsonl"})] * 3

    async def use() -> Any:
        async with AsyncDeftClient(script.url) as client:
            return await client.studies.preferences("stu_1", ties="keep")

    with DeftClient(script.url) as client:
        assert client.studies.preferences("stu_1", ties="keep") == rows
    assert asyncio.run(use()) == rows
    shown = CliRunner().invoke(app, ["--url", script.url, "studies", "preferences", "stu_1", "--keep-ties"])
    assert [json.loads(line) for line in shown.output.strip().split("\n")] == rows
    assert {path for _, path, _, _ in script.requests} == {"/studies/stu_1/export.jsonl?ties=keep"}


def test_a_study_becomes_a_dataset(script: Script) -> None:
    made = {"id": "ds_1", "name": "votes", "status": "ready", "sha256": "0", "size": 1}
    script.answers = [answer(201, made)] * 2 + [answer(201, made), answer(200, made)]

    async def use() -> Any:
        async with AsyncDeftClient(script.url) as client:
            return await client.datasets.from_study("stu_1", ties="keep", name="votes")

    with DeftClient(script.url) as client:
        assert client.datasets.from_study("stu_1", ties="keep", name="votes").id == "ds_1"
    assert asyncio.run(use()).id == "ds_1"
    command = ["datasets", "from-study", "stu_1", "--keep-ties", "--name", "votes"]
    assert CliRunner().invoke(app, ["--url", script.url, *command]).exit_code == 0
    asked = [json.loads(body) for method, path, _, body in script.requests if method == "POST"]
    assert asked == [{"study": "stu_1", "ties": "keep", "name": "votes"}] * 3


def test_rules_are_given_by_name(script: Script) -> None:
    script.answers = [answer(201, STUDY)]
    rules = ["--exclusion", "min_seconds=2", "--exclusion", "min_gold_accuracy=0.8"]
    hidden = ["--results", "after_unblinding", "--interim-looks", "2", "--boundary", "pocock"]
    done = CliRunner().invoke(
        app, ["--url", script.url, "studies", "create", "job_a", "job_b", *rules, *hidden]
    )
    assert done.exit_code == 0, done.output
    asked = json.loads(script.requests[0][3])
    assert asked["exclusion"] == {"min_seconds": 2, "min_gold_accuracy": 0.8}
    assert (asked["results"], asked["interim_looks"], asked["boundary"]) == ("after_unblinding", 2, "pocock")
    wrong = CliRunner().invoke(
        app, ["--url", script.url, "studies", "create", "a", "b", "--exclusion", "fast"]
    )
    assert wrong.exit_code == 2


def test_disagreements_are_listed(script: Script) -> None:
    vote = {"rater": "Ada", "winner": "a", "comment": None, "harmful": False}
    pair = {
        "id": 3, "sample_id": "x-3", "subset": "x", "a": "job_a", "b": "job_b", "prompt": [],
        "response_a": "one", "response_b": "other", "votes": [vote, {**vote, "rater": "Bob", "winner": "b"}],
    }  # fmt: skip
    script.answers = [answer(200, {"object": "list", "data": [pair], "has_more": True})] * 3

    async def use() -> Any:
        async with AsyncDeftClient(script.url) as client:
            return await client.studies.disagreements("stu_1", subset="x", after=2)

    with DeftClient(script.url) as client:
        page = client.studies.disagreements("stu_1", subset="x", after=2)
    assert asyncio.run(use()) == page
    assert page.has_more
    assert [vote.winner for vote in page.data[0].votes] == ["a", "b"]
    command = ["studies", "disagreements", "stu_1", "--subset", "x", "--after", "2"]
    assert "x-3" in CliRunner().invoke(app, ["--url", script.url, *command]).output
    assert {path for _, path, _, _ in script.requests} == {"/studies/stu_1/disagreements?subset=x&after=2"}


def test_a_judge_s_requests(script: Script) -> None:
    pair = {
        "id": 3, "sample_id": "x-3", "subset": "x", "a": "job_a", "b": "job_b", "prompt": [],
        "response_a": "one", "response_b": "other",
    }  # fmt: skip
    verdict = StudyVerdict(pair=3, a_first="a", b_first="tie")
    listed = answer(200, {"object": "list", "data": [pair], "has_more": False})
    script.answers = [listed, answer(200, {"judge": "m", "pairs": 1})] * 2

    async def use() -> Any:
        async with AsyncDeftClient(script.url) as client:
            studies = client.studies
            return await studies.pairs("stu_1", after=2), await studies.judge("stu_1", "m", [verdict])

    with DeftClient(script.url) as client:
        found = client.studies.pairs("stu_1", after=2), client.studies.judge("stu_1", "m", [verdict])
    assert asyncio.run(use()) == found
    assert found[0].data[0].response_b == "other"
    assert found[1].pairs == 1
    assert [path for _, path, _, _ in script.requests[:2]] == [
        "/studies/stu_1/pairs?after=2",
        "/studies/stu_1/verdicts",
    ]
    asked = {"judge": "m", "verdicts": [{"pair": 3, "a_first": "a", "b_first": "tie"}]}
    assert [json.loads(body) for method, _, _, body in script.requests if method == "POST"] == [asked] * 2
