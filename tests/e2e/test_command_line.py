"""The ``deft`` command against a service: JSON for machines, and exit statuses that tell."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deft_client.models import Dataset, Job
from tests.e2e.e2e_data import STEPS, Files
from tests.whole_service import JOB_SECONDS, WholeService

pytestmark = pytest.mark.timeout(900)  # a fixture waits for all stages of its job

Deft = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def deft(whole_service: WholeService) -> Deft:
    """Runs ``deft`` with the service found by its home, as on one machine."""
    program = Path(sys.executable).with_name("deft")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [program, "--home", whole_service.home, *arguments]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=JOB_SECONDS,
            stdin=subprocess.DEVNULL,
        )

    return run


def test_an_upload_waits_until_the_data_is_read(deft: Deft, files: Files, train_data: Dataset) -> None:
    done = deft("datasets", "upload", files.train, "--name", "by hand", "--json")
    assert done.returncode == 0, done.stderr
    dataset = json.loads(done.stdout)
    assert (dataset["name"], dataset["status"]) == ("by hand", "ready")
    assert (dataset["samples"], dataset["sha256"]) == (train_data.samples, train_data.sha256)


def test_a_file_that_cannot_be_used_is_exit_status_1(deft: Deft, tmp_path: Path) -> None:
    path = tmp_path / "single.jsonl"
    path.write_text('{"prompt": "Why?", "responses": ["Because."]}\n')
    done = deft("datasets", "upload", path, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["line"] == 1


def test_a_job_is_sent_waited_for_and_read(
    deft: Deft, grade_spec: dict[str, Any], aligned: Job, tmp_path: Path
) -> None:
    (tmp_path / "grade.yaml").write_text(yaml.safe_dump({**grade_spec, "name": "by hand"}))
    done = deft("jobs", "create", tmp_path / "grade.yaml", "--wait", "--json")
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert (job["name"], job["status"]) == ("by hand", "succeeded")

    done = deft("jobs", "metrics", aligned.id, "--name", "loss", "--json")
    assert done.returncode == 0, done.stderr
    (loss,) = json.loads(done.stdout)
    assert (loss["name"], loss["n"], len(loss["points"])) == ("loss", STEPS, STEPS)

    target = tmp_path / "levels.parquet"
    assert deft("jobs", "download", job["id"], "levels.parquet", target).returncode == 0
    assert target.read_bytes()[:4] == b"PAR1"


def test_a_refused_job_is_a_sentence_and_exit_status_1(
    deft: Deft, train_data: Dataset, tmp_path: Path
) -> None:
    spec = {"kind": "align", "dataset": train_data.id, "model": {"base": "tiny"}, "method": {"name": "dpp"}}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(spec))
    done = deft("jobs", "create", tmp_path / "wrong.yaml", "--wait", "--json")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "/method/name: 'dpp' is unknown; choose one of 'sft', 'dpo'" in done.stderr
    assert "Traceback" not in done.stderr
    assert deft("jobs", "show", "job_none").returncode == 1
    assert deft("jobs", "shwo").returncode == 2
