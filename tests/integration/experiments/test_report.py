"""An experiment's report: self-contained, cut off from the service, with the table's own figures."""

from __future__ import annotations

import re
from html import escape
from typing import Any

import pytest

from app.db.models import Job, JobStatus
from app.db.session import transaction
from app.ids import new_id
from tests.api_world import Api
from tests.experiment_world import PROMPTS, create, evaluate, words
from tests.study_world import Service

HOSTILE = "<script>alert(1)</script>"


def answer(arm: int, seed: int | None, row: dict[str, Any]) -> str:
    return HOSTILE if row["id"] == "p3" and arm == 0 else words(arm, seed, row)


def test_a_report_tells_the_whole_experiment(api: Api) -> None:
    made = create(api, api.dataset(PROMPTS)["id"], name=f"table {HOSTILE}")
    address = f"/experiments/{made['id']}/report.html"
    assert "unfinished" in api.get(address).text
    evaluate(made, [0, 1], answer)
    shown = api.get(address)
    assert shown.headers["content-security-policy"].endswith("sandbox")
    assert "script-src" not in shown.headers["content-security-policy"]
    page = shown.text
    assert "unfinished" not in page
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)") >= 2  # the name, and the answer that differs most
    assert not re.search(r"""(src|href)=|url\(""", page)
    found = api.get(f"/experiments/{made['id']}/results").json()
    for arm in found["arms"]:
        assert arm["name"] in page
        for figures in [arm["total"], *arm["subsets"].values()]:
            assert f"{figures['bleu']['value']:.2f}" in page
    difference = found["arms"][1]["total"]["bleu"]["difference"]
    assert f"BLEU {difference['value']:.2f} higher than DPO" in page
    assert "significant difference" in page
    assert "trained by DPO on all samples" in page
    assert "3 percent of the gradient" in page
    assert "Cost against quality" in page
    for heading in ("Question", "Method", "Results", "Case studies", "How to reproduce"):
        assert f"<h2>{heading}</h2>" in page
    without = api.get(f"{address}?cases=false").text
    assert "Case studies" not in without
    texts = [word for arm in (0, 1) for row in PROMPTS for word in (row["prompt"], words(arm, 1, row))]
    assert any(escape(text) in page for text in texts)
    assert not any(escape(text) in without for text in texts)
    assert api.http.get(address).status_code == 401
    assert api.get("/experiments/exp_unknown/report.html").status_code == 404


RATED = {
    "categories": {
        name: {"value": value, "n": 2, "unparsed": 0, "turns": {"1": {"value": value, "n": 1, "unparsed": 0}}}
        for name, value in {"writing": 7.0, "math": 2.5, "stem": 5.0}.items()
    },
    "turns": {"1": {"value": 4.83, "n": 3, "unparsed": 0}},
    "total": {"value": 4.83, "n": 6, "unparsed": 1},
    "signature": "judge:played|prompts:1",
}


def judged(model: str) -> None:
    """An MT-Bench job of a model that has ended."""
    spec = {"kind": "judge", "model": {"base": model}}
    with transaction() as session:
        session.add(
            Job(
                id=new_id("job"), kind="judge", name="bench", status=JobStatus.SUCCEEDED, spec=spec,
                warnings=[], result={"judge": RATED},
            )
        )  # fmt: skip


def voted(api: Api, a: str, b: str, choices: list[str]) -> str:
    """A study of two jobs, of which one rater rated some pairs; returns its id."""
    made = api.post("/studies", json={"name": "duel", "a": a, "b": b, "per_subset": 4, "seed": 1}).json()
    rater = Service(api.http, api.researcher, api.researcher).rater(made)
    for choice in choices:
        assert rater.vote(rater.pair()["id"], choice).status_code == 200
    return str(made["id"])


def row_of(page: str, *cells: str) -> str:
    """The table row that has these cells, one after another."""
    wanted = "".join(f"<td>{cell}</td>" for cell in cells)
    return next(row for row in page.split("<tr") if wanted in row)


def test_a_report_has_the_papers_other_table_and_figures(api: Api) -> None:
    dataset = api.dataset(PROMPTS)["id"]
    made = create(api, dataset)
    evaluate(made, [0, 1])
    dpo, deft = (api.get(f"/experiments/{made['id']}").json()["arms"][arm]["jobs"][0]["id"] for arm in (0, 1))
    address = f"/experiments/{made['id']}/report.html"
    study = voted(api, deft, dpo, ["left", "tie", "right", "tie"])
    judged(f"job:{deft}")
    judged("job:job_of_nobody")

    page = api.get(address).text
    assert row_of(page, dataset, "harmless", "8")
    assert row_of(page, dataset, "Total", "24", "6", "12", "6", "24")
    assert "What people preferred" not in page  # it is not unblinded

    assert api.post(f"/studies/{study}/unblind").status_code == 200
    page = api.get(address).text
    found = api.get(f"/studies/{study}/results").json()["total"]
    shares = [f"{100 * found[outcome]['share']:.1f}%" for outcome in ("win", "tie", "lose")]
    assert row_of(page, "duel", "DEFT-DPO against DPO", "total", *shares, "4")
    assert row_of(page, "DEFT-DPO", "1", "2.5", "5", "7", "4.83", "6", "1")
    assert page.count('<polygon class="arm') == 1
    assert "judge:played|prompts:1" in page


@pytest.mark.parametrize("arms", [[], [0]])
def test_what_is_not_there_is_not_shown(api: Api, arms: list[int]) -> None:
    made = create(api, api.dataset(PROMPTS)["id"])
    evaluate(made, arms)
    page = api.get(f"/experiments/{made['id']}/report.html").text
    assert "<h2>MT-Bench</h2>" not in page
    assert "What people preferred" not in page
    assert "<td>Total</td><td>24</td><td>–</td>" in page
