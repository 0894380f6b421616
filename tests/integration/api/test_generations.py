"""Imported generations: uploaded, matched, and evaluated, compared and rated as those made here."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api_world import RANKED, Api, jsonl, refusal, run_stages
from tests.experiment_world import PROMPTS, create, evaluate

EVALUATION = {"samples": None, "max_new_tokens": 4}


def answers(rows: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    return [{"sample_id": row["id"], "response": f"{text} {row['id']}", "model": "theirs"} for row in rows]


def imported(api: Api, dataset: str, rows: list[dict[str, Any]], name: str = "theirs") -> dict[str, Any]:
    """Generations that were sent and read."""
    sent = api.post(
        "/generations",
        files={"file": ("answers.jsonl", jsonl(rows))},
        data={"dataset": dataset, "name": name},
    )
    assert sent.status_code == 201, sent.text
    assert sent.headers["location"] == f"/generations/{sent.json()['id']}"
    run_stages("import_generations")
    return api.get(f"/generations/{sent.json()['id']}").json()


def evaluated(api: Api, dataset: str, generations: str) -> dict[str, Any]:
    """A job that evaluated imported generations."""
    job = api.job(
        kind="evaluate",
        name="their answers",
        eval_dataset=dataset,
        model={"generations": generations},
        evaluation=EVALUATION,
    )
    run_stages("generate", "evaluate")
    return api.get(f"/jobs/{job['id']}").json()


def test_generations_are_matched_and_what_is_not_used_is_in_the_ledger(api: Api) -> None:
    dataset = api.dataset()["id"]
    rows = [*answers(RANKED[:6], "ours"), {"sample_id": "nobody", "response": "x"}, {"sample_id": "s7"}]
    found = imported(api, dataset, rows)
    assert found["id"].startswith("gen_")
    assert (found["object"], found["name"], found["dataset"]) == ("generations", "theirs", dataset)
    assert found["status"] == "ready", found["error"]
    assert (found["rows"], found["answers"], found["rejected"], found["unanswered"]) == (8, 6, 2, 2)
    assert found["subsets"] == {"harmless": 3, "helpful": 3}
    ledger = api.get(found["links"]["validation"]).json()["data"]
    assert [(row["line"], row["code"]) for row in ledger] == [(7, "unknown_sample"), (8, "missing_field")]
    assert api.get(f"{found['links']['validation']}?after=7").json()["data"] == ledger[1:]
    assert [row["id"] for row in api.get("/generations").json()["data"]] == [found["id"]]
    assert [row["id"] for row in api.get("/datasets").json()["data"]] == [dataset], "they are no dataset"
    assert api.get(f"/datasets/{found['id']}").status_code == 404
    assert api.get(f"/generations/{dataset}").status_code == 404
    raw = api.post(f"/generations?dataset={dataset}&name=raw", content=jsonl(rows))
    assert (raw.status_code, raw.json()["status"]) == (201, "ready"), "the same bytes are read once"


def test_imported_generations_are_evaluated_like_a_model_s(api: Api) -> None:
    dataset = api.dataset()["id"]
    perfect = [{"prompt": row["prompt"], "response": row["responses"][0]["text"]} for row in RANKED]
    generations = imported(api, dataset, perfect)["id"]
    job = evaluated(api, dataset, generations)
    assert job["status"] == "succeeded", job["error"]
    assert [stage["name"] for stage in job["stages"]] == [
        "import",
        "import_generations",
        "generate",
        "evaluate",
    ]
    assert job["result"]["evaluate"]["total"]["bleu_pro_char"]["value"] == pytest.approx(100)
    lines = api.get(f"/jobs/{job['id']}/artifacts/generations.jsonl").text.splitlines()
    assert len(lines) == len(RANKED)
    assert f"imported generations {generations}" in api.get(f"/jobs/{job['id']}/artifacts/report.html").text
    dry = api.post("/jobs?dry_run=true", json=job["spec"])
    assert dry.status_code == 200, dry.text
    assert all(stage["reused"] for stage in dry.json()["stages"])


def test_missing_answers_are_a_warning_and_none_an_error(api: Api) -> None:
    dataset = api.dataset()["id"]
    job = evaluated(api, dataset, imported(api, dataset, answers(RANKED[:5], "x"))["id"])
    assert job["result"]["evaluate"]["total"]["length"]["n"] == 5
    assert any("3 of the 8 chosen samples" in text for text in job["result"]["warnings"])
    nothing = imported(api, dataset, [{"sample_id": "nobody", "response": "x"}])
    assert nothing["status"] == "invalid"
    assert (nothing["error"]["code"], nothing["error"]["line"]) == ("unknown_sample", 1)
    assert len(api.get(nothing["links"]["validation"]).json()["data"]) == 1
    spec = {"kind": "evaluate", "eval_dataset": dataset, "model": {"generations": nothing["id"]}}
    assert refusal(api, spec)[1:3] == ("invalid_generations", [("/model/generations", "invalid_generations")])


def test_someone_else_s_model_is_an_arm_of_the_table(api: Api) -> None:
    dataset = api.dataset(PROMPTS)["id"]
    generations = imported(api, dataset, answers(PROMPTS, "the cat sat on the mat and then slept well"))["id"]
    arms = [
        {"name": "DPO", "preset": "dpo"},
        {"name": "theirs", "kind": "evaluate", "model": {"generations": generations}},
    ]
    made = create(api, dataset, arms=arms)
    evaluate(made, [0])
    run_stages("generate", "evaluate")
    table = api.get(f"/experiments/{made['id']}/results").json()
    theirs = table["arms"][1]["total"]
    assert theirs["bleu"]["n"] == len(PROMPTS)
    assert theirs["bleu"]["difference"]["value"] > 0
    assert theirs["bleu"]["difference"]["reason"] == ""
    assert generations in api.get(f"/experiments/{made['id']}/report.html").text


def test_studies_compare_imported_generations(api: Api) -> None:
    dataset = api.dataset()["id"]
    jobs = [
        evaluated(api, dataset, imported(api, dataset, answers(RANKED, text), text)["id"])["id"]
        for text in ("one", "two")
    ]
    study = api.post("/studies", json={"name": "duel", "a": jobs[0], "b": jobs[1], "per_subset": 2})
    assert study.status_code == 201, study.text


def test_what_cannot_be_imported_or_evaluated_is_refused_with_its_place(api: Api) -> None:
    dataset, other = api.dataset()["id"], api.dataset(RANKED[:3])["id"]
    found = imported(api, dataset, answers(RANKED, "x"))["id"]

    def sent(**data: str) -> tuple[int, list[tuple[str, str]]]:
        content = jsonl(answers(RANKED, "y"))
        answer = api.post("/generations", files={"file": ("a.jsonl", content)}, data=data)
        return answer.status_code, [(e["pointer"], e["code"]) for e in answer.json().get("errors", [])]

    assert sent(dataset="ds_none") == (422, [("/dataset", "unknown_dataset")])
    assert sent(dataset=found) == (422, [("/dataset", "unknown_dataset")])
    assert sent()[1][0][0] == "/dataset"
    assert sent(dataset=dataset, subset="x") == (422, [("/subset", "unknown_field")])
    broken = api.upload(b"no json\n")
    run_stages("import")
    assert sent(dataset=broken["id"]) == (422, [("/dataset", "unfit_dataset")])

    def refused(**fields: Any) -> list[tuple[str, str]]:
        spec = {"kind": "evaluate", "eval_dataset": dataset, "model": {"generations": found}, **fields}
        return refusal(api, spec)[2]

    assert refused(eval_dataset=other) == [("/model/generations", "unfit_generations")]
    assert refused(model={"generations": "gen_no"}) == [("/model/generations", "unknown_generations")]
    assert refused(eval_dataset=found) == [("/eval_dataset", "unknown_dataset")]
    assert refused(evaluation={"perplexity": True})[0][0] == "/evaluation/perplexity"


def test_what_is_in_use_is_not_deleted(api: Api) -> None:
    dataset = api.dataset()["id"]
    found = imported(api, dataset, answers(RANKED, "x"))["id"]
    model = {"generations": found}
    job = api.job(kind="evaluate", eval_dataset=dataset, model=model, evaluation=EVALUATION)

    def delete(path: str) -> tuple[int, str]:
        answer = api.http.delete(path, headers=api.researcher)
        return answer.status_code, answer.json()["code"] if answer.content else ""

    assert delete(f"/generations/{found}") == (409, "generations_in_use")
    api.post(f"/jobs/{job['id']}/cancel")
    assert delete(f"/datasets/{dataset}") == (409, "dataset_in_use")
    assert delete(f"/generations/{found}") == (204, "")
    assert api.get(f"/generations/{found}").status_code == 404
    assert delete(f"/datasets/{dataset}") == (204, "")


def test_generations_wait_for_a_dataset_that_is_still_read(api: Api) -> None:
    dataset = api.upload(jsonl(RANKED))["id"]
    found = api.post(
        "/generations", files={"file": ("a", jsonl(answers(RANKED, "x")))}, data={"dataset": dataset}
    ).json()
    assert (found["status"], found["name"]) == ("processing", "a")
    job = api.job(kind="evaluate", eval_dataset=dataset, model={"generations": found["id"]})
    run_stages("import", "import_generations", "generate", "evaluate")
    assert api.get(f"/generations/{found['id']}").json()["status"] == "ready"
    assert api.get(f"/jobs/{job['id']}").json()["status"] == "succeeded"


def test_a_repeated_request_imports_once(api: Api) -> None:
    dataset = api.dataset()["id"]
    both = [
        api.post(
            "/generations",
            files={"file": ("a.jsonl", jsonl(answers(RANKED, "x")))},
            data={"dataset": dataset},
            headers={"Idempotency-Key": "once"},
        )
        for _ in range(2)
    ]
    assert both[0].json() == both[1].json()
    assert len(api.get("/generations").json()["data"]) == 1
