"""Experiments for tests: real requests, answers written by the test, and the real stage ``evaluate``."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from app.db.models import ExperimentJob, JobStage, StageRun, StageStatus
from app.db.session import transaction
from tests.api_world import Api, finish, run_stages, take

GRADER = {"name": "scores"}
BASE = {
    "model": {"base": "tiny"},
    "deft": {"grader": GRADER, "a": 25, "c": 25},
    "training": {"max_steps": 1},
    "evaluation": {"samples": None, "max_new_tokens": 4},
}
TWO = [{"name": "DPO", "preset": "dpo"}, {"name": "DEFT-DPO", "preset": "deft-dpo"}]
WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree", "and", "then", "slept", "well"]
PROMPTS = [
    {"id": f"p{n}", "subset": "helpful" if n % 3 else "harmless", "prompt": f"Question {n}?",
     "responses": [{"text": f"the cat sat on the mat and then slept well {n}", "score": n},
                   {"text": "no", "score": -1}]}
    for n in range(24)
]  # fmt: skip
RESULTS: Mapping[str, dict[str, Any]] = {
    "grade": {"levels": {"A": 6, "B": 12, "C": 6}},
    "train": {"steps": 5, "tokens": 1000, "samples": 40},
    "reference": {"tokens": 300},
}


def asked(dataset: str, **fields: Any) -> dict[str, Any]:
    """A request of two arms and two seeds."""
    return {
        "name": "table",
        "dataset": dataset,
        "eval_dataset": dataset,
        "base": BASE,
        "arms": TWO,
        "seeds": [1, 2],
        "baseline": "DPO",
    } | fields


def create(api: Api, dataset: str, **fields: Any) -> dict[str, Any]:
    """A new experiment."""
    answer = api.post("/experiments", json=asked(dataset, **fields))
    assert answer.status_code == 201, answer.text
    return answer.json()


def words(arm: int, seed: int | None, row: dict[str, Any]) -> str:
    """An answer; a later arm's has more of the reference in it."""
    chance = random.Random(f"{arm} {seed} {row['id']}")
    kept = row["responses"][0]["text"].split()[: 2 + 2 * arm + chance.randint(0, 4)]
    return " ".join([*kept, *chance.choices(WORDS, k=3)])


def evaluate(
    experiment: Mapping[str, Any],
    arms: list[int],
    answer: Callable[[int, int | None, dict[str, Any]], str] = words,
) -> None:
    """Carry out the jobs of these arms with made-up answers; the evaluation is the engine's."""
    with transaction() as session:
        places = session.scalars(
            sa.select(ExperimentJob).where(
                ExperimentJob.experiment_id == experiment["id"], ExperimentJob.arm.in_(arms)
            )
        ).all()
    for place in places:
        for stage in ("score", "grade", "distribution", "reference", "train"):
            _finish(place.job_id, stage, {}, RESULTS.get(stage, {}))
        lines = [_line(row, answer(place.arm, place.seed, row)) for row in PROMPTS]
        _finish(place.job_id, "generate", {"generations.jsonl": "".join(lines).encode()}, {"tokens": 96})
    run_stages("evaluate")


def _finish(job_id: str, stage: str, files: dict[str, bytes], result: dict[str, Any]) -> None:
    """End a stage of a job, unless it has ended or the job has none."""
    with transaction() as session:
        run = session.scalar(
            sa.select(StageRun)
            .join(JobStage, JobStage.stage_run_id == StageRun.id)
            .where(
                JobStage.job_id == job_id, StageRun.stage == stage, StageRun.status != StageStatus.SUCCEEDED
            )
        )
        if run is None:
            return
        run.status = StageStatus.READY
        run_id = run.id
    finish(take(run_id), files, result)


def _line(row: dict[str, Any], response: str) -> str:
    content = {
        "sample_id": row["id"],
        "subset": row["subset"],
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "response": response,
        "reference": row["responses"][0]["text"],
    }
    return json.dumps(content, ensure_ascii=False) + "\n"
