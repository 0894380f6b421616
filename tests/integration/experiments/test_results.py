"""An experiment's results over HTTP, recomputed from the artifacts by code that shares nothing with ours."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.stats
from nltk.translate.bleu_score import sentence_bleu
from sacrebleu.metrics import BLEU

from tests.api_world import Api
from tests.experiment_world import PROMPTS, create, evaluate

Lines = list[dict[str, Any]]


def results(api: Api, experiment: dict[str, Any]) -> dict[str, Any]:
    answer = api.get(f"/experiments/{experiment['id']}/results")
    assert answer.status_code == 200, answer.text
    return answer.json()


def generations(api: Api, experiment: dict[str, Any]) -> list[list[Lines]]:
    """``[arm][seed]``: the lines of each job's generations."""
    return [
        [
            [
                json.loads(line)
                for line in api.get(f"/jobs/{job['id']}/artifacts/generations.jsonl").text.splitlines()
            ]
            for job in arm["jobs"]
        ]
        for arm in experiment["arms"]
    ]


def char_bleu(lines: Lines) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.array([100 * sentence_bleu([line["reference"]], line["response"]) for line in lines])


def corpus(lines: Lines) -> float:
    return BLEU().corpus_score([x["response"] for x in lines], [[x["reference"] for x in lines]]).score


def near(found: list[float], expected: Any, share: float = 0.1) -> None:
    low, high = expected
    assert abs(found[0] - low) < share * (high - low)
    assert abs(found[1] - high) < share * (high - low)


def test_every_figure_is_recomputed_from_the_artifacts(api: Api) -> None:
    made = create(api, api.dataset(PROMPTS)["id"])
    evaluate(made, [0, 1])
    found = results(api, made)
    assert (found["status"], found["complete"], found["baseline"]) == ("succeeded", True, "DPO")
    answers = generations(api, made)
    chance = np.random.default_rng(4)
    for group in ("harmless", "helpful", None):
        of_arms = [[[x for x in run if group in (None, x["subset"])] for run in arm] for arm in answers]
        rows = [arm["total"] if group is None else arm["subsets"][group] for arm in found["arms"]]
        means = {
            "bleu_pro_char": [np.array([char_bleu(run) for run in arm]) for arm in of_arms],
            "length": [np.array([[len(x["response"]) for x in run] for run in arm]) for arm in of_arms],
        }
        for name, (base, better) in means.items():
            for values, row in zip((base, better), rows, strict=True):
                assert row[name]["value"] == pytest.approx(values.mean())
                assert row[name]["sd"] == pytest.approx(np.std(values.mean(axis=1), ddof=1))
                assert (row[name]["n"], row[name]["seeds"]) == (values.shape[1], 2)
                expected = scipy.stats.bootstrap(
                    (values.mean(axis=0),), np.mean, method="percentile", rng=chance
                )
                near(row[name]["interval"], expected.confidence_interval)
            gains = (better - base).mean(axis=0)
            difference = rows[1][name]["difference"]
            assert difference["value"] == pytest.approx(gains.mean())
            expected = scipy.stats.bootstrap((gains,), np.mean, method="percentile", rng=chance)
            near(difference["interval"], expected.confidence_interval)
            assert rows[0][name]["difference"] is None
        for arm, row in zip(of_arms, rows, strict=True):
            assert row["bleu"]["value"] == pytest.approx(np.mean([corpus(run) for run in arm]))
        total = np.mean([corpus(run) for run in of_arms[1]]) - np.mean([corpus(run) for run in of_arms[0]])
        assert rows[1]["bleu"]["difference"]["value"] == pytest.approx(total)
    corpus_bleu_s_interval_is_that_of_resampled_texts(answers, found["arms"][1]["total"]["bleu"])


def corpus_bleu_s_interval_is_that_of_resampled_texts(answers: list[list[Lines]], figure: Any) -> None:
    base, better = answers
    chance = np.random.default_rng(6)
    drawn = []
    for _ in range(150):
        picked = chance.integers(0, len(PROMPTS), len(PROMPTS))
        own, other = (np.mean([corpus([run[i] for i in picked]) for run in arm]) for arm in (better, base))
        drawn.append((own, own - other))
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    near(figure["interval"], (low[0], high[0]), share=0.3)
    near(figure["difference"]["interval"], (low[1], high[1]), share=0.3)


def test_the_table_fills_while_jobs_run(api: Api) -> None:
    made = create(api, api.dataset(PROMPTS)["id"])
    assert [arm["total"] for arm in results(api, made)["arms"]] == [{}, {}]
    evaluate(made, [1])
    found = results(api, made)
    assert (found["status"], found["complete"]) == ("running", False)
    assert [(arm["seeds"], arm["missing"]) for arm in found["arms"]] == [([], 2), ([1, 2], 0)]
    assert "not evaluated yet" in found["arms"][1]["total"]["bleu"]["difference"]["reason"]


def test_cost_share_of_the_data_and_signatures_stand_beside_the_figures(api: Api) -> None:
    arms = [{"name": "DPO", "preset": "dpo"}, {"name": "DEFT-DPO", "preset": "deft-dpo"},
            {"name": "0-shot", "kind": "evaluate"}]  # fmt: skip
    made = create(api, api.dataset(PROMPTS)["id"], arms=arms)
    evaluate(made, [0, 1, 2])
    rows = results(api, made)["arms"]
    total = rows[1]["total"]
    assert set(total) == {"bleu", "bleu_pro_char", "length"}
    assert "tok:13a" in total["bleu"]["signature"]
    assert "pro-char" in total["bleu_pro_char"]["signature"]
    for figure in total.values():
        assert re.search(r"\|data:[0-9a-f]{8}\|greedy:.*max_new_tokens=4.*samples=all", figure["signature"])
    costs = [arm["cost"] for arm in rows]
    assert [cost["trained_share"] for cost in costs] == [1.0, 0.25, None]
    assert [cost["trained_tokens"] for cost in costs] == [1000, 1000, 0]
    assert [cost["tokens"] for cost in costs] == [1396, 1396, 96]
    assert [cost["jobs"] for cost in costs] == [2, 2, 1]


def test_tables_for_spreadsheets_and_for_latex(api: Api) -> None:
    arms = [{"name": "=SUM(A1) & 50%_{x}", "preset": "dpo"}, {"name": "-D^A", "preset": "deft-dpo"}]
    made = create(api, api.dataset(PROMPTS)["id"], arms=arms, baseline=arms[0]["name"])
    evaluate(made, [0, 1])
    table = results(api, made)["arms"]
    answer = api.get(f"/experiments/{made['id']}/results.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert {row["arm"] for row in rows} == {"'" + arm["name"] for arm in arms}
    assert not re.search(r"(^|,)\"?[=@]", answer.text, re.M)
    whole = {(row["arm"], row["subset"], row["figure"]): row for row in rows}
    assert len(whole) == 2 * 3 * 3
    bleu = whole["'-D^A", "Total", "bleu"]
    figure = table[1]["total"]["bleu"]
    assert float(bleu["value"]) == figure["value"]
    assert float(bleu["difference"]) == figure["difference"]["value"]
    assert float(bleu["p_holm"]) == figure["difference"]["p_corrected"]

    answer = api.get(f"/experiments/{made['id']}/results.tex")
    assert answer.headers["content-disposition"].endswith('.tex"')
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    tex = answer.text
    assert all(rule in tex for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert r"=SUM(A1) \& 50\%\_\{x\} & 100 &" in tex
    assert r"-D\textasciicircum{}A & 25 &" in tex
    assert f"{figure['value']:.2f}" in tex
    assert "pro" not in tex  # the other kind of BLEU stands in no table beside corpus BLEU
    lines = [line for line in tex.splitlines() if line.endswith(r"\\") and not line.startswith("Method")]
    assert [line.replace(r"\&", "").count("&") for line in lines] == [2 + 3 - 1] * 3


def test_results_are_a_viewer_s_too_and_nobody_else_s(api: Api) -> None:
    made = create(api, api.dataset(PROMPTS)["id"])
    for name in ("results", "results.csv", "results.tex"):
        address = f"/experiments/{made['id']}/{name}"
        assert api.get(address, headers=api.viewer).status_code == 200
        assert api.http.get(address).status_code == 401
        assert api.get(f"/experiments/exp_unknown/{name}").status_code == 404
