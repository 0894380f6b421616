"""What both clients share: answers to exceptions, server-sent events, resumable downloads."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from deft_client.errors import APIError, ConnectionFailed, DownloadCorrupted, error_for
from deft_client.models import Event
from deft_client.transport import http

ATTEMPTS = 6
EVENTS_OF_A_PAGE = 100  # the most that the API gives
RETRYABLE_STATUS = frozenset({429, 502, 503, 504})


class Unavailable(ConnectionFailed):
    """An answer that is worth another try."""


def raise_for_problem(response: http.Response) -> None:
    """Turn an error answer into its exception; the body must have been read."""
    if response.status_code < 400:
        return
    try:
        problem = response.json()
    except ValueError:
        problem = {"title": response.reason_phrase, "detail": response.text[:500]}
    error = error_for(response.status_code, problem if isinstance(problem, dict) else {"detail": problem})
    if response.status_code in RETRYABLE_STATUS:
        raise Unavailable(str(error)) from error
    raise error


def is_transient(error: Exception) -> bool:
    """Whether another try may succeed: the network, or a service that is starting or busy."""
    return isinstance(error, (http.TransportError, Unavailable))


def final(error: Exception) -> Exception:
    """What the caller sees when no try succeeded."""
    if isinstance(error, Unavailable) and isinstance(error.__cause__, APIError):
        return error.__cause__
    if isinstance(error, http.TransportError):
        return ConnectionFailed(f"the service does not answer: {error or type(error).__name__}")
    return error


def answer_of(response: http.Response) -> Any:
    """The JSON body, a list of the rows of JSON lines, None where there is none (204), or a file's bytes."""
    kind = response.headers.get("content-type", "application/json").partition(";")[0]
    if kind == "application/jsonl":
        return [json.loads(line) for line in response.content.splitlines()]
    if kind != "application/json":
        return response.content
    return response.json() if response.content else None


class CountedFile(io.FileIO):
    """A file for reading that tells how many bytes were read."""

    def __init__(self, path: Path, on_bytes: Callable[[int], None] | None) -> None:
        super().__init__(path, "rb")
        self._on_bytes = on_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        """As ``FileIO.read``."""
        data = super().read(-1 if size is None else size) or b""
        if self._on_bytes is not None:
            self._on_bytes(len(data))
        return data


class EventParser:
    """Server-sent events from lines; comments (heartbeats) are dropped."""

    def __init__(self, after: int) -> None:
        self.last = after
        self._id: str | None = None
        self._data: list[str] = []

    def feed(self, line: str) -> Event | None:
        """One line without its end; an event when the line ends one that was not seen before."""
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "id":
                self._id = value
            elif name == "data":
                self._data.append(value)
            return None
        data, identifier = self._data, self._id
        self._data, self._id = [], None
        if not data or identifier is None or int(identifier) <= self.last:
            return None
        self.last = int(identifier)
        return Event.model_validate({"seq": self.last, **json.loads("\n".join(data))})


def ends_stream(event: Event) -> bool:
    """Whether nothing can follow this event."""
    return event.type == "job.status" and event.data.get("status") in ("succeeded", "failed", "cancelled")


class Download:
    """A file that grows next to its target, continued by Range, checked by SHA-256, renamed when right."""

    def __init__(self, target: Path, sha256: str) -> None:
        self._target = target
        self._sha256 = sha256
        self.partial = target.with_name(f"{target.name}.{sha256[:8]}.partial")
        target.parent.mkdir(parents=True, exist_ok=True)

    @property
    def done(self) -> bool:
        """Whether the target already holds the wanted bytes."""
        return self._target.is_file() and _sha256(self._target) == self._sha256

    def headers(self) -> dict[str, str]:
        """Range of what is missing, valid only for the same content, uncompressed."""
        plain = {"Accept-Encoding": "identity"}
        have = self.partial.stat().st_size if self.partial.exists() else 0
        return {"Range": f"bytes={have}-", "If-Range": f'"{self._sha256}"', **plain} if have else plain

    def mode(self, status: int) -> str:
        """How to open the partial file for an answer of this status."""
        return "ab" if status == http.codes.PARTIAL_CONTENT else "wb"

    def finish(self) -> Path:
        """Check and rename.

        Raises:
            DownloadCorrupted: the bytes are not the announced ones.
        """
        found = _sha256(self.partial)
        if found != self._sha256:
            self.partial.unlink()
            raise DownloadCorrupted(f"{self._target.name}: got SHA-256 {found}, announced {self._sha256}")
        self.partial.replace(self._target)
        return self._target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def below(root: Path, name: str) -> Path:
    """``root/name`` for an artifact's name, which must stay below ``root``."""
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise DownloadCorrupted(f"artifact name {name!r} leaves the folder {root}")
    return path


def selected(names: Iterable[str], wanted: str) -> list[str]:
    """The names that are ``wanted`` or lie in the folder ``wanted``."""
    return [name for name in names if name == wanted or name.startswith(f"{wanted}/")]
