"""Uploads: streamed to disk in constant memory, hashed on the way; a cut connection leaves nothing."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from streaming_form_data import StreamingFormDataParser
from streaming_form_data.parser import ParseFailedException, UnexpectedPartException
from streaming_form_data.targets import BaseTarget

from app.errors import FieldError, Problem, invalid_request
from app.settings import get_settings

_WRITE_BYTES = 2**20
_MAX_FIELD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Upload:
    """A whole upload on disk, until the block that received it ends."""

    path: Path
    sha256: str
    size: int
    filename: str | None
    fields: dict[str, str]


@asynccontextmanager
async def receive_upload(request: Request, fields: Sequence[str]) -> AsyncIterator[Upload]:
    """The request's body as a file: the form's part ``file``, or the raw body; a form may have ``fields``.

    Raises:
        Problem: 413 above ``max_upload_bytes``; 422 for an empty file or a malformed form.
        OSError: the disk is full.
    """
    _refuse_announced_size(request)
    partial = _partial()
    try:
        with partial.open("wb", buffering=0) as file:
            content = _Content(file)
            form = _Form(content, request, fields) if _is_form(request) else None
            async for chunk in _in_large_chunks(request):
                await run_in_threadpool(form.feed if form else content.data_received, chunk)
            if form:
                form.check()
            if content.size == 0:
                raise _invalid("/file", "empty_file", "the file is empty; send a file with at least one row")
            await run_in_threadpool(os.fsync, file.fileno())
        yield Upload(
            partial, content.sha256, content.size, content.multipart_filename, form.values if form else {}
        )
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def written_upload(content: bytes) -> Iterator[Upload]:
    """Bytes that the service made itself, as if they had been sent."""
    partial = _partial()
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield Upload(partial, hashlib.sha256(content).hexdigest(), len(content), None, {})
    finally:
        partial.unlink(missing_ok=True)


def remove_leftovers(older_than: float) -> None:
    """Remove what a killed process left: partial uploads not written to since the time ``older_than``."""
    for partial in get_settings().uploads_root.glob("*.partial"):
        with suppress(FileNotFoundError):
            if partial.stat().st_mtime < older_than:
                partial.unlink()


class _Content(BaseTarget):  # type: ignore[misc]
    """The file's bytes: to disk and through SHA-256, up to the cap."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._hash = hashlib.sha256()
        self._cap = get_settings().max_upload_bytes
        self.size = 0
        self.parts = 0
        self.whole = False

    @property
    def sha256(self) -> str:
        """Of all bytes so far."""
        return self._hash.hexdigest()

    def on_start(self) -> None:
        self.parts += 1
        if self.parts > 1:
            raise _invalid("/file", "two_files", "the form has two parts named file; send one file at a time")

    def on_data_received(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > self._cap:
            raise _too_large(self._cap)
        self._hash.update(chunk)
        view = memoryview(chunk)
        while view:
            view = view[self._file.write(view) :]

    def on_finish(self) -> None:
        self.whole = True


class _Field(BaseTarget):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._parts = 0
        self.value = b""

    def on_start(self) -> None:
        self._parts += 1
        if self._parts > 1:
            detail = f"the form has two parts named {self._name}; send one"
            raise _invalid(f"/{self._name}", "two_fields", detail)

    def on_data_received(self, chunk: bytes) -> None:
        self.value += chunk
        if len(self.value) > _MAX_FIELD_BYTES:
            detail = f"is longer than {_MAX_FIELD_BYTES} bytes; shorten it"
            raise _invalid(f"/{self._name}", "too_long", detail)

    def text(self) -> str:
        """The whole value.

        Raises:
            Problem: it is not UTF-8.
        """
        try:
            return self.value.decode()
        except UnicodeDecodeError as error:
            raise _invalid(f"/{self._name}", "invalid_utf8", "is not UTF-8; encode it so") from error


class _Form:
    """``multipart/form-data`` with the part ``file`` and optional fields."""

    def __init__(self, content: _Content, request: Request, fields: Sequence[str]) -> None:
        self._content = content
        self._fields = {name: _Field(name) for name in fields}
        try:
            self._parser = StreamingFormDataParser(request.headers, strict=True)
        except ParseFailedException as error:
            raise _malformed(str(error)) from error
        self._parser.register("file", content)
        for name, target in self._fields.items():
            self._parser.register(name, target)

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes of the body."""
        try:
            self._parser.data_received(chunk)
        except UnexpectedPartException as error:
            name = str(error.part_name)
            detail = f"the form has a part {name!r}; the parts are file, {', '.join(self._fields)}"
            raise _invalid(f"/{name}", "unknown_field", detail) from error
        except ParseFailedException as error:
            raise _malformed(str(error)) from error

    def check(self) -> None:
        """The body has ended.

        Raises:
            Problem: the form has no file, or breaks off inside it.
        """
        if self._content.parts == 0:
            raise _invalid("/file", "missing", "the form has no part named file; curl: -F file=@data.jsonl")
        if not self._content.whole:
            raise _malformed("the form ends inside the file")

    @property
    def values(self) -> dict[str, str]:
        """The fields that were given; an empty one counts as not given.

        Raises:
            Problem: one is not UTF-8.
        """
        found = {name: target.text() for name, target in self._fields.items()}
        return {name: value for name, value in found.items() if value}


async def _in_large_chunks(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces that are worth a thread's start."""
    pending = bytearray()
    async for chunk in request.stream():
        pending += chunk
        if len(pending) >= _WRITE_BYTES:
            yield bytes(pending)
            pending.clear()
    if pending:
        yield bytes(pending)


def _partial() -> Path:
    partial = get_settings().uploads_root / f"{secrets.token_hex(16)}.partial"
    partial.parent.mkdir(parents=True, exist_ok=True)
    return partial


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


def _refuse_announced_size(request: Request) -> None:
    announced = request.headers.get("content-length", "")
    cap = get_settings().max_upload_bytes
    # A form has a few hundred bytes around its file; the file itself is counted as it arrives.
    if announced.isascii() and announced.isdecimal() and int(announced) > cap + 2**20:
        raise _too_large(cap)


def _too_large(cap: int) -> Problem:
    return Problem(
        413,
        "too_large",
        "The upload is too large",
        f"more than {cap} bytes; compress it with gzip, split it, or raise DEFT_MAX_UPLOAD_BYTES",
    )


def _malformed(what: str) -> Problem:
    return _invalid("", "malformed_form", f"the form cannot be read: {what}; curl: -F file=@data.jsonl")


def _invalid(pointer: str, code: str, detail: str) -> Problem:
    return invalid_request([FieldError(pointer=pointer, code=code, detail=detail)])
