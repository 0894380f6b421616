"""Nothing is computed twice, unless it is asked for; and ``deft run`` computes the same."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deft_client.models import Job
from tests.e2e.e2e_data import Files
from tests.whole_service import JOB_SECONDS, WholeService

pytestmark = pytest.mark.timeout(900)  # a fixture waits for all stages of its job

DEFT = Path(sys.executable).with_name("deft")


def runs(job: Job) -> dict[str, str]:
    """Stage run of each stage; no job here has two of a name but ``import``."""
    return {stage.name: stage.run for stage in job.stages if stage.name != "import"}


def reused(job: Job) -> set[str]:
    return {stage.name for stage in job.stages if stage.reused}


def test_another_method_scores_and_grades_nothing_again(
    whole_service: WholeService, align_spec: dict[str, Any], aligned: Job
) -> None:
    job = whole_service.run({**align_spec, "name": "DEFT-SFT", "preset": "deft-sft", "evaluation": None})
    assert reused(job) == {"import", "score", "grade", "distribution"}
    for stage in ("score", "grade", "distribution"):
        assert runs(job)[stage] == runs(aligned)[stage]
    assert runs(job)["train"] != runs(aligned)["train"]
    names = {artifact.name for artifact in whole_service.client.jobs.artifacts(job.id)}
    assert {"scores.parquet", "levels.parquet", "qdiff.safetensors"} <= names  # the job's, too


def test_another_share_grades_again_without_scoring(
    whole_service: WholeService, grade_spec: dict[str, Any], aligned: Job
) -> None:
    job = whole_service.run({**grade_spec, "deft": {**grade_spec["deft"], "a": 40}})
    assert reused(job) == {"import", "score"}
    assert runs(job)["score"] == runs(aligned)["score"]
    assert job.result is not None
    assert aligned.result is not None
    assert job.result["grade"]["levels"]["A"] > aligned.result["grade"]["levels"]["A"]


def test_deft_run_gives_the_service_s_bytes(
    whole_service: WholeService,
    grade_spec: dict[str, Any],
    reward_model: Job,
    aligned: Job,
    files: Files,
    tmp_path: Path,
) -> None:
    served = whole_service.run(grade_spec)
    assert reused(served) == {"import", "score", "grade", "distribution"}
    model = whole_service.client.jobs.download(reward_model.id, "model", tmp_path / "reward-model")
    grader = {**grade_spec["deft"]["grader"], "model": str(model)}
    spec = {**grade_spec, "dataset": str(files.train), "deft": {**grade_spec["deft"], "grader": grader}}
    (tmp_path / "grade.yaml").write_text(yaml.safe_dump(spec))
    command = [DEFT, "run", tmp_path / "grade.yaml", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=JOB_SECONDS)
    assert done.returncode == 0, done.stderr
    announced = {each.name: each.sha256 for each in whole_service.client.jobs.artifacts(served.id)}
    for name in ("scores.parquet", "levels.parquet", "qdiff.safetensors"):
        found = hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest()
        assert found == announced[name], name
