"""Downloads the files of a data set on the hub: those of one split, with formats that can be read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import stamina

from deft_engine.data.hub_dataset import HubDataset, check_hub, hub_address
from deft_engine.endpoints.hosts import AllowedHosts
from deft_engine.errors import DataError, EndpointError, EndpointUnavailable

_READ = re.compile(r"\.(jsonl|json|parquet)(\.gz)?$")
_SHARD = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]+)?$")
_PLAIN_FOLDERS = {"data", "default"}  # say nothing of what is in them
_MOST_BYTES = "DEFT_MAX_UPLOAD_BYTES"
_DEFAULT_MOST_BYTES = 20 * 2**30
_ATTEMPTS = 4
_TRIED_AGAIN = {408, 429, 500, 502, 503, 504}
_UNREADABLE = {"RepositoryNotFoundError", "GatedRepoError", "DisabledRepoError"}
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class HubFile:
    """A downloaded file, its path in the repository, and the subset that its folder names, if it does."""

    local: Path
    path: str
    subset: str | None


def download(wanted: HubDataset, folder: Path, check: Callable[[], None]) -> tuple[str, list[HubFile]]:
    """The commit, and the split's files in the order of their paths; what is in ``folder`` already stays.

    Args:
        check: Called before each file; it may raise to give up.

    Raises:
        EndpointError: the hub's host, or one that it sends us to, is not allowed.
        EndpointUnavailable: the hub does not answer.
        DataError: there is no such data set, revision, folder or split, or it is too large.
    """
    allowed = AllowedHosts.from_environment()
    check_hub(allowed)
    from huggingface_hub import HfApi, constants, hf_hub_download

    constants.HF_HUB_DISABLE_XET = True  # its transfers would go around the check of hosts
    api = HfApi(endpoint=hub_address())
    with _watched(allowed):
        info = _asked(wanted, lambda: api.dataset_info(wanted.hub, revision=wanted.revision))
        commit = str(info.sha)
        tree = _asked(
            wanted,
            lambda: list(
                api.list_repo_tree(
                    wanted.hub, wanted.data_dir, recursive=True, revision=commit, repo_type="dataset"
                )
            ),
        )
        sizes = {entry.path: entry.size for entry in tree if hasattr(entry, "size")}
        paths = split_files(sorted(sizes), wanted)
        _check_size(wanted, sum(sizes[path] for path in paths))
        found = []
        for path in paths:
            check()
            local = _asked(
                wanted,
                lambda path=path: hf_hub_download(  # type: ignore[misc]
                    wanted.hub, path, repo_type="dataset", revision=commit, cache_dir=folder,
                    endpoint=hub_address(),
                ),
            )  # fmt: skip
            found.append(HubFile(Path(local), path, _subset(path, wanted.split)))
    return commit, found


def split_files(paths: Sequence[str], wanted: HubDataset) -> list[str]:
    """Those of a repository's files that hold the split.

    Raises:
        DataError: there is none; the hint lists what is there.
    """
    readable = [path for path in paths if _READ.search(path)]
    found = [path for path in readable if wanted.split in (_stem(path), *PurePosixPath(path).parts[:-1])]
    if found:
        return found
    where = f" below {wanted.data_dir}" if wanted.data_dir else ""
    there = ", ".join(sorted({_stem(path) for path in readable})[:20]) or "none that can be read"
    raise DataError(
        f"{wanted.hub} has no file of the split {wanted.split!r}{where}",
        hint=f"its files are named {there}; a split is such a name, or that of a folder",
        code="unknown_split",
    )


def _stem(path: str) -> str:
    return _SHARD.sub("", _READ.sub("", PurePosixPath(path).name))


def _subset(path: str, split: str) -> str | None:
    """The innermost folder that says more than the split does."""
    told = [part for part in PurePosixPath(path).parts[:-1] if part not in (split, *_PLAIN_FOLDERS)]
    return told[-1] if told else None


def _check_size(wanted: HubDataset, size: int) -> None:
    most = int(os.environ.get(_MOST_BYTES) or _DEFAULT_MOST_BYTES)
    if size > most:
        raise DataError(
            f"the split {wanted.split!r} of {wanted.hub} has {size} bytes, more than {most}",
            hint=f"name a data_dir with less in it, or raise {_MOST_BYTES}",
            code="too_large",
        )


@contextmanager
def _watched(allowed: AllowedHosts) -> Iterator[None]:
    """Check the host of every request that goes to a hub, and where it redirects."""
    from huggingface_hub import get_session

    def check(request: Any) -> None:
        url = request.url
        allowed.resolve(url.host, url.port or _PORTS[url.scheme])

    session = get_session()
    before = session.event_hooks
    session.event_hooks = {**before, "request": [*before.get("request", ()), check]}
    try:
        yield
    finally:
        session.event_hooks = before


def _asked(wanted: HubDataset, call: Callable[[], Any]) -> Any:
    """The hub's answer, asked for again where it may come; errors are ours."""
    try:
        for attempt in stamina.retry_context(on=_may_come, attempts=_ATTEMPTS, timeout=None):
            with attempt:
                return call()
    except (DataError, EndpointError):
        raise
    except Exception as error:
        raise _known(wanted, error) from error
    raise AssertionError("retry_context ends by returning or raising")


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)


def _may_come(error: Exception) -> bool:
    """Whether the same request may be answered later: a busy or broken server, a cut connection."""
    cause = error.__cause__ if type(error).__name__ == "LocalEntryNotFoundError" else None
    if cause is not None and isinstance(cause, Exception):
        return _may_come(cause)
    if isinstance(error, DataError | EndpointError):
        return False
    return _status(error) in _TRIED_AGAIN or type(error).__name__.endswith(
        ("Timeout", "ConnectError", "ReadError", "RemoteProtocolError", "LocalEntryNotFoundError")
    )


def _known(wanted: HubDataset, error: Exception) -> DataError | EndpointError:
    cause = error.__cause__
    if isinstance(cause, DataError | EndpointError):
        return cause
    name = type(error).__name__
    said = (str(error).strip().splitlines() or [name])[0]
    if name in _UNREADABLE or _status(error) in (401, 403):
        return DataError(
            f"{wanted.hub} cannot be read from the hub: there is no such data set, or this service may not",
            hint="check the name; for a private or gated one the operator sets HF_TOKEN for the workers",
            code="unknown_hub_dataset",
        )
    if name == "RevisionNotFoundError":
        return DataError(
            f"{wanted.hub} has no revision {wanted.revision!r}",
            hint="name a branch, a tag or a commit",
            code="unknown_revision",
        )
    if name in ("EntryNotFoundError", "RemoteEntryNotFoundError") or _status(error) == 404:
        where = f"folder {wanted.data_dir!r}" if wanted.data_dir else "such file"
        return DataError(f"{wanted.hub} has no {where}", hint="check data_dir", code="unknown_data_dir")
    return EndpointUnavailable(
        f"the hub at {hub_address()} does not answer as it should: {said}",
        hint="send the request again later; HF_ENDPOINT names the hub",
        code="hub_unavailable",
    )
