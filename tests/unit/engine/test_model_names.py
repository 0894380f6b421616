import os
from pathlib import Path

import pytest

from deft_engine import model_names
from deft_engine.errors import SpecError
from deft_engine.model_names import model_digest, resolve_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_built_in_models_have_a_digest_of_their_own() -> None:
    tiny = resolve_model("tiny", None, "/model/base", ())
    assert tiny.uri == "builtin:tiny"
    assert tiny.digest != resolve_model("smollm2", None, "/model/base", ()).digest


def test_a_hub_id_is_bound_to_its_revision() -> None:
    default = resolve_model("org/name", None, "/model/base", ())
    assert default.uri == "hub:org/name@main"
    assert resolve_model("org/name", "v2", "/model/base", ()).digest != default.digest


def test_a_folder_is_found_by_content_not_by_name(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    first, second = (resolve_model(str(p), None, "/model/base", None) for p in (folder, copy))
    assert first.uri == f"path:{folder}"
    assert first.uri != second.uri
    assert first.digest == second.digest
    (copy / "model.safetensors").write_bytes(b"WEIGHTS")
    assert model_digest(copy) != first.digest


def test_large_files_enter_by_size_and_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_names, "HASHED_UP_TO", 6)
    before = model_digest(folder)
    weights = folder / "model.safetensors"
    os.utime(weights, ns=(1, 1))
    touched = model_digest(folder)
    assert touched != before
    weights.write_bytes(b"WEIGHTS")
    os.utime(weights, ns=(1, 1))
    assert model_digest(folder) == touched


def test_a_relative_folder_goes_before_a_hub_id(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_model("models/mine", None, "/model/base", None).uri == f"path:{folder}"
    assert resolve_model("models/mine", None, "/model/base", (tmp_path,)).uri == "hub:models/mine@main"


@pytest.mark.parametrize("name", ["/etc", "{roots}/../outside", "{roots}/link", "{roots}/loop", "./mine"])
def test_the_roots_hold(name: str, folder: Path, tmp_path: Path) -> None:
    roots = folder.parent
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_text("{}")
    (roots / "link").symlink_to(outside)
    (roots / "loop").symlink_to(roots / "loop")
    with pytest.raises(SpecError, match="outside the allowed model folders") as caught:
        resolve_model(name.format(roots=roots), None, "/model/base", (roots,))
    assert caught.value.pointer == "/model/base"


def test_a_file_that_links_out_of_the_roots_is_refused(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    (folder / "vocab.json").symlink_to(secret)
    with pytest.raises(SpecError, match="outside the allowed model folders"):
        resolve_model(str(folder), None, "/model/base", (folder.parent,))


@pytest.mark.parametrize(
    ("name", "revision", "message", "pointer"),
    [
        ("tinny", None, "'tinny' is not known", "/model/base"),
        ("job:job_1", None, "names a job", "/model/base"),
        ("tiny", "main", "has no revisions", "/model/revision"),
        ("org/name", "a b", "not the name of a branch", "/model/revision"),
        ("/no/such/folder", None, "no such folder", "/model/base"),
        ("/" + "x" * 300, None, "no such folder", "/model/base"),
        ("/tmp", None, "neither config.json", "/model/base"),
    ],
)
def test_errors_say_what_is_wrong_and_where(
    name: str, revision: str | None, message: str, pointer: str
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        resolve_model(name, revision, "/model/base", None)
    assert caught.value.pointer == pointer
    assert caught.value.hint
