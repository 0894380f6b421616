"""A worker killed in the middle of an experiment changes no figure of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from deft_client.models import Experiment
from tests.conftest import server_folder
from tests.e2e.e2e_data import DEFT_A, EVALUATED, TRAINING, Files
from tests.whole_service import JOB_SECONDS, WholeService, running
from tests.worker_world import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STEPS, CHECKPOINT = 96, 16  # tiny's steps are quick, and the kill must come before the last one


def test_a_killed_worker_changes_no_figure(files: Files) -> None:
    disturbed, undisturbed = run(files, kill_in_training), run(files, lambda *_: None)
    assert disturbed["figures"] == undisturbed["figures"]
    assert disturbed["weights"] == undisturbed["weights"]


def kill_in_training(service: WholeService, sent: Experiment) -> None:
    """SIGKILL to the worker of the first job, between two of its checkpoints; another one goes on."""
    job = sent.arms[0].jobs[0].id
    until(lambda: trained_steps(service, job) > CHECKPOINT, JOB_SECONDS)
    pid = json.loads((service.home / "service.json").read_text(encoding="utf-8"))["pid"]
    (worker,) = (child for child in psutil.Process(pid).children() if "gpu@%h" in child.cmdline())
    worker.kill()
    until(lambda: service.client.jobs.retrieve(job).attempt == 2, JOB_SECONDS)


def trained_steps(service: WholeService, job: str) -> int:
    """The last step whose loss is stored."""
    series = service.client.jobs.metrics(job, ["loss"]).data
    return series[0].points[-1][0] if series and series[0].points else 0


def run(files: Files, meanwhile: Callable[[WholeService, Experiment], None]) -> dict[str, Any]:
    """An experiment of two arms on a service of its own: its figures and weights."""
    with server_folder() as home, running(home) as service:
        data, held_out = service.dataset(files.train), service.dataset(files.evaluation)
        training = {**TRAINING, "max_steps": STEPS, "checkpoint_every": CHECKPOINT}
        reward = {"kind": "reward_model", "dataset": data.id, "model": {"base": "tiny"}, "training": TRAINING}
        judge = f"job:{service.run(reward).id}"
        client = service.client.experiments
        sent = client.create(
            {
                "name": "two arms",
                "dataset": data.id,
                "eval_dataset": held_out.id,
                "seeds": [1],
                "arms": [{"name": "DPO", "preset": "dpo"}, {"name": "DEFT-DPO", "preset": "deft-dpo"}],
                "base": {
                    "model": {"base": "tiny"},
                    "deft": {"a": DEFT_A, "grader": {"name": "reward_model", "model": judge}},
                    "training": training,
                    "evaluation": {"reward_model": judge, "samples": EVALUATED, "max_new_tokens": 8},
                },
            }
        )
        meanwhile(service, sent)
        ended = client.wait(sent.id, timeout=4 * JOB_SECONDS)
        assert ended.status == "succeeded"
        jobs = [job.id for arm in ended.arms for job in arm.jobs]
        return {
            "figures": [figures(arm) for arm in client.results(sent.id)["arms"]],
            "weights": [weights(service, job) for job in jobs],
        }


def figures(arm: dict[str, Any]) -> dict[str, Any]:
    """What an arm's row says, without its cost and the services' own names of jobs and data."""
    groups = {**arm["subsets"], "Total": arm["total"]}
    return {
        group: {
            name: {part: value for part, value in figure.items() if part != "signature"}
            for name, figure in of.items()
        }
        for group, of in groups.items()
    }


def weights(service: WholeService, job: str) -> str:
    """SHA-256 of the trained weights."""
    (found,) = (
        artifact.sha256
        for artifact in service.client.jobs.artifacts(job)
        if artifact.name == "model/model.safetensors"
    )
    return found
