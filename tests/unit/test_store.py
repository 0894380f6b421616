import errno
import hashlib
import os
from pathlib import Path

import pytest

from deft_engine.store import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def _files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_content_is_found_by_its_hash(store: LocalStore, file: Path) -> None:
    digest = store.put(file)
    assert digest == hashlib.sha256(b"content").hexdigest()
    assert store.get(digest).read_bytes() == b"content"
    file.unlink()
    assert store.get(digest).read_bytes() == b"content"


def test_equal_content_is_kept_once(store: LocalStore, file: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    twin.write_bytes(b"content")
    assert store.put(file) == store.put(twin)
    assert len(_files(tmp_path / "store")) == 1


def test_a_known_hash_is_not_computed_again(
    store: LocalStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(b"content").hexdigest()
    monkeypatch.setattr("deft_engine.store.sha256_file", lambda _: pytest.fail("hashed again"))
    assert store.put(file, digest) == digest


def _no_link(*_: object) -> None:
    raise OSError(errno.EXDEV, "another file system")


def test_another_file_system_is_copied_from(
    store: LocalStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", _no_link)
    stored = store.get(store.put(file))
    assert stored.read_bytes() == b"content"
    assert not stored.samefile(file)


def test_a_failed_put_leaves_nothing(
    store: LocalStore, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: str) -> None:
        Path(target).write_bytes(b"cont")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", _no_link)
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        store.put(file)
    assert _files(tmp_path / "store") == []


def test_a_put_that_another_one_overtakes_leaves_nothing_beside_the_content(
    store: LocalStore, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def overtaken(source: Path, target: str) -> None:
        monkeypatch.setattr(os, "link", link)
        store.put(file)
        link(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    digest = store.put(file)
    assert _files(tmp_path / "store") == [store.get(digest)]


def test_content_is_on_the_disk_before_it_has_its_name(
    store: LocalStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    replace = os.replace

    def named(source: str, target: Path) -> None:
        steps.append("named")
        replace(source, target)

    monkeypatch.setattr(
        os, "fsync", lambda descriptor: steps.append(f"synced {os.fstat(descriptor).st_size}")
    )
    monkeypatch.setattr(os, "replace", named)
    folder = store.get(store.put(file)).parent
    assert steps == [f"synced {len(b'content')}", "named", f"synced {folder.stat().st_size}"]


def test_what_is_not_there_is_told_and_deleting_it_is_no_error(store: LocalStore, file: Path) -> None:
    digest = store.put(file)
    store.delete(digest)
    store.delete(digest)
    with pytest.raises(FileNotFoundError, match=digest):
        store.get(digest)
