"""Which model a name in a spec means, and a digest of what it holds; without torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from deft_engine.canonical import canonical_json, sha256_file, sha256_hex
from deft_engine.endpoints.hosts import AllowedHosts
from deft_engine.endpoints.spec import EndpointSpec
from deft_engine.errors import EndpointError, SpecError
from deft_engine.plan import External

BUILTIN_MODELS = {"tiny": 1, "smollm2": 1}
"""Built-in name -> version of its weights; a new version makes new fingerprints."""

HASHED_UP_TO = 64 * 1024 * 1024
"""Files up to this size (bytes) enter a digest by content, larger ones by size and time of change."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")
_REVISION = re.compile(r"[\w.-]+(/[\w.-]+)*")


def resolve_model(name: str, revision: str | None, pointer: str, roots: tuple[Path, ...] | None) -> External:
    """The source that ``name`` means: a built-in model, a local folder, or a hub id.

    Args:
        name: ``tiny``, ``smollm2``, a folder's path, or ``org/name``.
        revision: of a hub id; ``main`` if null.
        pointer: JSON pointer of the name in the spec, for errors.
        roots: local folders must lie below one of these after symbolic links are followed, and be named by an
            absolute path. None allows any folder, also a relative one, which then goes before a hub id.

    Raises:
        SpecError: the name means nothing, or nothing that may be used.
    """
    if name in BUILTIN_MODELS:
        _no_revision(revision, name, pointer)
        return External(f"builtin:{name}", f"builtin:{name}@{BUILTIN_MODELS[name]}")
    if name.startswith("job:"):
        raise SpecError(
            f"model {name!r} names a job, which only a running service knows",
            hint="name the folder of the job's model instead",
            pointer=pointer,
        )
    if _is_path(name, roots):
        _no_revision(revision, name, pointer)
        try:
            folder = _folder(name, pointer, roots)
            return External(f"path:{folder}", model_digest(folder))
        except OSError as error:
            raise SpecError(
                f"model {name!r} cannot be read: {error.strerror}",
                hint="check the folder's permissions",
                pointer=pointer,
            ) from error
    if _HUB_ID.fullmatch(name):
        revision = revision or "main"
        if not _REVISION.fullmatch(revision):
            raise SpecError(
                f"revision {revision!r} is not the name of a branch, a tag or a commit",
                hint="give for example main or a commit's hash",
                pointer=f"{pointer.rpartition('/')[0]}/revision",
            )
        return External(f"hub:{name}@{revision}", f"hub:{name}@{revision}")
    raise SpecError(
        f"model {name!r} is not known",
        hint=f"name a built-in model ({', '.join(BUILTIN_MODELS)}), the absolute path of a model's folder, "
        "or a hub id such as org/name",
        pointer=pointer,
    )


def resolve_endpoint(spec: EndpointSpec, pointer: str, allowed: AllowedHosts) -> External:
    """The source that an endpoint is, if its host may be asked; what its name stands for is checked later.

    Raises:
        SpecError: the host is not allowed.
    """
    parts = urlsplit(spec.url)
    try:
        allowed.check(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    except EndpointError as error:
        raise SpecError(
            error.message, hint=error.hint, code=error.error_code, pointer=f"{pointer}/url"
        ) from error
    return External(spec.uri, spec.identity)


def model_digest(folder: Path) -> str:
    """Identity of a model folder: SHA-256 over every visible file's relative name, size and content.

    A file above ``HASHED_UP_TO`` enters by size and time of change instead of its content, so that submitting
    a job does not read gigabytes of weights. At worst, a touched or copied folder is computed with anew.
    """
    entries: list[tuple[str, int, str]] = []
    for path in _visible_files(folder):
        stat = path.stat()
        content = sha256_file(path) if stat.st_size <= HASHED_UP_TO else f"mtime:{stat.st_mtime_ns}"
        entries.append((path.relative_to(folder).as_posix(), stat.st_size, content))
    return sha256_hex(canonical_json(entries))


def _visible_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _no_revision(revision: str | None, name: str, pointer: str) -> None:
    if revision is not None:
        raise SpecError(
            f"model {name!r} has no revisions, but revision {revision!r} was given",
            hint="set revision to null; only hub ids have revisions",
            pointer=f"{pointer.rpartition('/')[0]}/revision",
        )


def _is_path(name: str, roots: tuple[Path, ...] | None) -> bool:
    if name.startswith(("/", "./", "../")):
        return True
    return roots is None and _exists(Path(name))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # for example a name longer than the file system allows
        return False


def _folder(name: str, pointer: str, roots: tuple[Path, ...] | None) -> Path:
    folder = Path(name)
    if roots is not None:
        _inside(folder, name, pointer, roots)
    folder = folder.resolve()
    if not _exists(folder) or not folder.is_dir():
        raise SpecError(
            f"model {name!r}: there is no such folder", hint="check the path's spelling", pointer=pointer
        )
    if not (folder / "config.json").is_file() and not any(folder.glob("*.gguf")):
        raise SpecError(
            f"model {name!r}: the folder holds neither config.json nor a *.gguf file",
            hint="name the folder into which save_pretrained wrote the model",
            pointer=pointer,
        )
    if roots is not None:
        for path in _visible_files(folder):
            _inside(path, name, pointer, roots)
    return folder


def _inside(path: Path, name: str, pointer: str, roots: tuple[Path, ...]) -> None:
    """Refuse what lies outside the roots; the answer does not tell whether it exists."""
    try:
        real = path.resolve()
        allowed = path.is_absolute() and any(real.is_relative_to(root.resolve()) for root in roots)
    except (OSError, RuntimeError):  # a loop of symbolic links, a name too long
        allowed = False
    if not allowed:
        listed = ", ".join(map(str, roots)) or "none are set"
        raise SpecError(
            f"model {name!r} lies outside the allowed model folders ({listed})",
            hint="give an absolute path below one of them, or ask the operator to add a folder to "
            "DEFT_MODEL_ROOTS",
            code="model_outside_roots",
            pointer=pointer,
        )
