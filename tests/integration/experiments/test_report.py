"""An experiment's report: self-contained, cut off from the service, with the table's own figures."""

from __future__ import annotations

import re
from typing import Any

from tests.api_world import Api
from tests.experiment_world import PROMPTS, create, evaluate, words

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
    assert api.http.get(address).status_code == 401
    assert api.get("/experiments/exp_unknown/report.html").status_code == 404
