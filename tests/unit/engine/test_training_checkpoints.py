"""Checkpoints: whole or absent, the last two kept, another run's refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from deft_engine.checkpoints import Checkpoints, RunIdentity
from deft_engine.errors import CheckpointMismatch, DiskFull
from deft_engine.spec_sections import TrainingSpec

IDENTITY = RunIdentity.of(TrainingSpec())


def write(checkpoints: Checkpoints, step: int) -> None:
    with checkpoints.writing(step, {"omega": 0.1 * step}) as folder:
        (folder / "weights").write_text(f"weights of step {step}")


def write_half(checkpoints: Checkpoints, step: int) -> None:
    with checkpoints.writing(step, {}) as folder:
        (folder / "weights").write_text("half")
        raise OSError("no space")


def test_the_newest_is_found_by_number_and_carries_its_state(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    assert checkpoints.latest() is None
    for step in (9, 10):  # as text, "9" would be the later
        write(checkpoints, step)
    found = Checkpoints(tmp_path, IDENTITY).latest()
    assert found is not None
    assert found.step == 10
    assert found.state == {"omega": 1.0}
    assert (found.folder / "weights").read_text() == "weights of step 10"


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    for step in (1, 2, 3, 4):
        write(checkpoints, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-3", "checkpoint-4"]


def test_a_failed_save_leaves_the_one_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    write(checkpoints, 1)
    with pytest.raises(OSError, match="no space"):
        write_half(checkpoints, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_a_full_disk_is_told_whatever_the_writer_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    write(checkpoints, 1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(DiskFull, match="step 2") as told:
        write_half(checkpoints, 2)
    assert told.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_what_a_killed_process_left_is_cleared_and_never_read(tmp_path: Path) -> None:
    write(Checkpoints(tmp_path, IDENTITY), 1)
    half = tmp_path / "checkpoint-2.partial"
    half.mkdir()
    (half / "weights").write_text("half")
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    found = checkpoints.latest()
    assert found is not None
    assert found.step == 1
    checkpoints.discard_unfinished()
    assert not half.exists()


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (RunIdentity("zero-2", 1, IDENTITY.spec_sha256), "engine 'single'"),
        (RunIdentity("single", 2, IDENTITY.spec_sha256), "world_size 1"),
        (RunIdentity.of(TrainingSpec(seed=7)), "spec_sha256"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, other: RunIdentity, found: str) -> None:
    write(Checkpoints(tmp_path, IDENTITY), 1)
    with pytest.raises(CheckpointMismatch, match=found) as refusal:
        Checkpoints(tmp_path, other).latest()
    assert refusal.value.hint
