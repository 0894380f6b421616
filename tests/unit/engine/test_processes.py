"""Training on two processes: the model of one, whatever divides the work, and what happens when they end."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from deft_engine.events import read_events
from deft_engine.losses import DPO
from deft_engine.run import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_SUCCEEDED
from deft_engine.spec_sections import Engine, GradShare
from deft_engine.stages import ReferenceSpec, TrainSpec
from tests.unit.engine.stage_folders import (
    error_of,
    make_samples,
    make_stage,
    points,
    result_of,
    run_stage,
    set_attempt,
    weights,
)
from tests.unit.engine.test_train_policy import counts, make_reference, q_diff, qdiff_file, train_spec
from tests.worker_world import until

__all__ = ["counts", "q_diff", "qdiff_file"]

SAMPLES = make_samples(7, responses=3)
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="needs the extra: pip install 'deft[deepspeed]'"
)
ENGINES = [
    "ddp",
    "fsdp",
    *(pytest.param(f"zero-{n}", marks=[pytest.mark.slow, needs_deepspeed]) for n in (1, 2, 3)),
]


def spec_on(engine: Engine, processes: int, epochs: int = 2, **training: Any) -> TrainSpec:
    """3 + 3 + 1 samples an epoch, two micro-batches a step: one of two processes has none of the last."""
    return train_spec(
        DPO(sft_weight=0.05),
        GradShare(grad_share=0.1, hold=True),
        training={
            **{"batch_size": 3, "gradient_accumulation": 2, "epochs": epochs},
            "learning_rate": 1e-4,  # at a gradient of nearly zero AdamW makes a step of rounding errors
            **training,
        },
        engine=engine,
        processes=processes,
    )


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_reference(tmp_path_factory.mktemp("reference") / "stage", SAMPLES)


@pytest.fixture(scope="module")
def inputs(reference: str, qdiff_file: str) -> dict[str, str]:
    return {"reference": reference, "qdiff": qdiff_file}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, inputs: dict[str, str]) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "stage"
    make_stage(folder, "train", spec_on("single", 1), SAMPLES, **inputs)
    assert run_stage(folder) == EXIT_SUCCEEDED
    return folder


@pytest.mark.parametrize("engine", ENGINES)
def test_two_processes_make_the_model_of_one(
    tmp_path: Path, alone: Path, inputs: dict[str, str], engine: Engine
) -> None:
    folder = make_stage(tmp_path / "stage", "train", spec_on(engine, 2), SAMPLES, **inputs)
    assert run_stage(folder) == EXIT_SUCCEEDED
    expected, found = (load_file(f / "out" / "model" / "model.safetensors") for f in (alone, folder))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6, msg=name)
    figures, theirs = points(folder), points(alone)
    assert figures.keys() == theirs.keys()
    for key, value in theirs.items():
        assert figures[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    assert result_of(folder)["samples"] == result_of(alone)["samples"] == 14


@contextmanager
def started(folder: Path, attempt: int) -> Iterator[subprocess.Popen[bytes]]:
    """The stage as a worker's supervisor runs it; nothing of it is left behind."""
    set_attempt(folder, attempt)
    command = [sys.executable, "-m", "deft_engine", "stage", str(folder)]
    with (folder / "output.log").open("ab") as log:
        stage = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        yield stage
    finally:
        stage.kill()
        stage.wait()


def last_step(folder: Path, attempt: int) -> int:
    """The last optimiser step that an attempt reported."""
    path = folder / f"events-{attempt}.jsonl"
    events = [event for _, event in read_events(path, 0)] if path.exists() else []
    return max((event["step"] for event in events if event["type"] == "metrics"), default=0)


def processes_of(folder: Path) -> list[psutil.Process]:
    """The training processes of a stage, wherever in the tree they are."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if (line := process.info["cmdline"]) and "deft_engine.rank_process" in line and str(folder) in line
        and "torch.distributed.run" not in line
    ]  # fmt: skip


@pytest.mark.parametrize(
    "engine",
    [
        "ddp",
        pytest.param("fsdp", marks=pytest.mark.slow),
        pytest.param("zero-2", marks=[pytest.mark.slow, needs_deepspeed]),
        pytest.param("zero-3", marks=[pytest.mark.slow, needs_deepspeed]),
    ],
)
def test_killed_and_stopped_it_ends_with_the_weights_of_an_undisturbed_run(
    tmp_path: Path, inputs: dict[str, str], engine: Engine
) -> None:
    spec = spec_on(engine, 2, epochs=20, checkpoint_every=3)  # 40 steps
    undisturbed, folder = (
        make_stage(tmp_path / name, "train", spec, SAMPLES, **inputs) for name in ("undisturbed", "stage")
    )
    assert run_stage(undisturbed) == EXIT_SUCCEEDED

    with started(folder, attempt=1) as stage:  # one of the processes is killed
        until(lambda: last_step(folder, 1) >= 4, patience=120)
        processes_of(folder)[0].send_signal(signal.SIGKILL)
        assert stage.wait(60) == EXIT_FAILED
    assert error_of(folder)["code"] == "stage_crashed"
    assert error_of(folder)["retryable"]

    with started(folder, attempt=2) as stage:  # it is asked to stop
        until(lambda: last_step(folder, 2) >= 7, patience=120)
        stage.terminate()
        assert stage.wait(60) == EXIT_INTERRUPTED

    with started(folder, attempt=3) as stage:  # what launched them is killed, and they end with it
        until(lambda: last_step(folder, 3) > last_step(folder, 2), patience=120)
        stage.kill()
        psutil.wait_procs(processes_of(folder), timeout=20)
        assert not processes_of(folder)

    assert run_stage(folder, attempt=4) == EXIT_SUCCEEDED
    assert last_step(folder, 1) < last_step(folder, 2) < last_step(folder, 3) < 40
    assert weights(folder) == weights(undisturbed)
    assert points(folder) == points(undisturbed)


def test_a_checkpoint_of_another_engine_is_refused(tmp_path: Path, inputs: dict[str, str]) -> None:
    folder = make_stage(tmp_path / "stage", "train", spec_on("single", 1), SAMPLES, **inputs)
    (folder / "work").mkdir()
    (folder / "work" / "checkpoint-1").mkdir()
    (folder / "work" / "checkpoint-1" / "checkpoint.json").write_text(
        '{"engine": "zero-2", "world_size": 2, "spec_sha256": "", "step": 1, "state": {}}'
    )
    assert run_stage(folder) == EXIT_FAILED
    error = error_of(folder)
    assert error["code"] == "checkpoint_mismatch"
    assert "'zero-2'" in error["message"]
    assert error["hint"]


def test_samples_are_shared_out_and_the_figures_are_those_of_one_process(tmp_path: Path) -> None:
    samples = make_samples(300)  # two windows: one for each process
    made = []
    for processes in (1, 2):
        spec = ReferenceSpec(max_length=128, template="auto", dtype="auto", levels=(), processes=processes)
        folder = make_stage(tmp_path / str(processes), "reference", spec, samples)
        assert run_stage(folder) == EXIT_SUCCEEDED
        made.append((folder / "out" / "reference.parquet").read_bytes())
    assert made[0] == made[1]
