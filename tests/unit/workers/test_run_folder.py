from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.db.claims import Claim, ClaimedInput
from deft_engine.run import StageRequest
from deft_engine.store import LocalStore
from workers.run_folder import RunFolder


def claim_of(*inputs: ClaimedInput, attempt: int = 1) -> Claim:
    return Claim("run_1", attempt, "train", "f" * 64, {"seed": 1}, inputs)


def stored(store: LocalStore, folder: Path, content: str) -> str:
    path = folder / "content"
    path.write_text(content)
    digest = store.put(path)
    path.unlink()
    return digest


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "run_1")


def request(folder: RunFolder) -> StageRequest:
    return StageRequest.model_validate_json((folder.path / "stage.json").read_bytes())


def test_inputs_are_found_as_the_stage_expects_them(
    folder: RunFolder, store: LocalStore, tmp_path: Path
) -> None:
    samples, config, weights, upload = (
        stored(store, tmp_path, content) for content in ("samples", "config", "weights", "upload")
    )
    claimed = claim_of(
        ClaimedInput("samples", "i1", None, "samples.parquet", {"samples.parquet": samples}),
        ClaimedInput("model", "i2", None, "model", {"model/config.json": config, "model/sub/w": weights}),
        ClaimedInput("upload", "i3", f"upload:{upload}", None, {}),
        ClaimedInput("base", "i4", "path:/models/a:b", None, {}),
        ClaimedInput("tokenizer", "i5", "builtin:tiny", None, {}),
        ClaimedInput("reward_model", "i6", "hub:org/name@main", None, {}),
    )
    folder.prepare(claimed, store)
    asked = request(folder)
    assert Path(asked.inputs["samples"]).name == "samples.parquet"
    assert Path(asked.inputs["samples"]).read_text() == "samples"
    model = Path(asked.inputs["model"])
    assert (model / "config.json").read_text() == "config"
    assert (model / "sub" / "w").read_text() == "weights"
    assert Path(asked.inputs["upload"]).read_text() == "upload"
    assert asked.inputs["base"] == "/models/a:b"
    assert asked.inputs["tokenizer"] == "builtin:tiny"
    assert asked.inputs["reward_model"] == "hub:org/name@main"
    assert asked.input_ids["model"] == "i2"
    assert (asked.stage, asked.attempt, asked.spec) == ("train", 1, {"seed": 1})


def test_the_next_attempt_prepares_the_same_folder_again(
    folder: RunFolder, store: LocalStore, tmp_path: Path
) -> None:
    upload = ClaimedInput("upload", "i", f"upload:{stored(store, tmp_path, 'text')}", None, {})
    folder.prepare(claim_of(upload), store)
    checkpoint = folder.path / "work" / "checkpoint-5"
    checkpoint.mkdir(parents=True)
    folder.prepare(claim_of(upload, attempt=2), store)
    assert request(folder).attempt == 2
    assert checkpoint.is_dir()


@pytest.mark.parametrize(
    "given",
    [
        ClaimedInput("upload", "i", "upload:" + "0" * 64, None, {}),
        ClaimedInput("samples", "i", None, "samples.parquet", {"samples.parquet": "0" * 64}),
        ClaimedInput("samples", "i", None, "samples.parquet", {}),
    ],
)
def test_an_input_that_is_not_there_is_an_error(
    folder: RunFolder, store: LocalStore, given: ClaimedInput
) -> None:
    with pytest.raises(FileNotFoundError):
        folder.prepare(claim_of(given), store)


def test_outputs_go_to_the_store_by_their_relative_names(folder: RunFolder, store: LocalStore) -> None:
    made = folder.path / "out" / "model" / "config.json"
    made.parent.mkdir(parents=True)
    made.write_text("{}")
    digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # printf '{}' | sha256sum
    manifest = {"outputs": {"model/config.json": {"sha256": digest, "size": 2}}}
    (folder.path / "manifest.json").write_text(json.dumps(manifest))
    assert folder.manifest() == manifest
    (output,) = folder.store_outputs(manifest, store)
    assert (output.name, output.sha256, output.size, output.media_type) == (
        "model/config.json",
        digest,
        2,
        "application/json",
    )
    assert store.get(digest).read_text() == "{}"


def test_a_run_that_has_not_succeeded_has_no_manifest(folder: RunFolder) -> None:
    assert folder.manifest() is None


def test_the_log_is_kept_from_its_end(folder: RunFolder) -> None:
    assert folder.log_tail(1) == ""
    folder.path.mkdir(parents=True)
    folder.log(1).write_bytes(b"x" * 100_000 + b"\xff last words")
    tail = folder.log_tail(1)
    assert tail.endswith("\ufffd last words")
    assert len(tail) == 64 * 1024
