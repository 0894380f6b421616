"""``Idempotency-Key``: a POST sent twice creates once, and gets the first answer again.

The answer is stored in the transaction that creates, so that both are there or neither; two requests with one
key meet at an advisory lock. Answers may hold a secret (a new API key), so they are stored sealed with the
caller's own credential, of which the database has the hash alone.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

import sqlalchemy as sa
from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.responses import Response

from app.auth import Principal
from app.db.models import IdempotencyKey
from app.errors import Problem

_KEPT_FOR = timedelta(hours=24)
_NONCE_BYTES = 16
_TAG_BYTES = 32


def created(body: BaseModel, location: str) -> JSONResponse:
    """201 with the address of what was created."""
    return JSONResponse(body.model_dump(mode="json"), 201, {"Location": location})


@dataclass(frozen=True, slots=True)
class Once:
    """A request's idempotency key, if it has one, and the hash of what it asks for."""

    key: str | None
    request_hash: str

    def answer(self, session: Session, caller: Principal, create: Callable[[], Response]) -> Response:
        """``create()``'s answer, or the one that was given to the same request before.

        ``session`` is the transaction in which ``create`` works.

        Raises:
            Problem: 422 if the key was used for another request, 409 while the first one is in flight.
        """
        if self.key is None:
            return create()
        if not session.scalar(
            sa.select(sa.func.pg_try_advisory_xact_lock(_lock_number(caller.key_id, self.key)))
        ):
            raise Problem(
                409,
                "request_in_flight",
                "The same request is being carried out",
                "a request with this Idempotency-Key is in flight; send it again in a moment",
                headers={"Retry-After": "1"},
            )
        mine = IdempotencyKey.key_id == caller.key_id
        session.execute(
            sa.delete(IdempotencyKey).where(mine, IdempotencyKey.created_at < sa.func.now() - _KEPT_FOR)
        )
        stored = session.get(IdempotencyKey, (caller.key_id, self.key))
        if stored is not None:
            return self._replay(stored, caller)
        response = create()
        session.add(
            IdempotencyKey(
                key_id=caller.key_id,
                key=self.key,
                request_hash=self.request_hash,
                status=response.status_code,
                headers={"location": response.headers.get("location", "")},
                body=_seal(bytes(response.body), caller.credential),
            )
        )
        return response

    def _replay(self, stored: IdempotencyKey, caller: Principal) -> Response:
        if stored.request_hash != self.request_hash:
            raise Problem(
                422,
                "idempotency_key_reused",
                "The Idempotency-Key was used for another request",
                "send a new key with every new request, and the same key only to repeat one",
            )
        body = _unseal(stored.body, caller.credential)
        headers = {**stored.headers, "Idempotency-Replayed": "true"}
        return Response(body, stored.status, headers, media_type="application/json")


def once_for(request: Request, idempotency_key: str | None, content: bytes) -> Once:
    """The key and the hash of method, address and content."""
    digest = hashlib.sha256()
    for part in (request.method, request.url.path, request.url.query):
        digest.update(part.encode() + b"\n")
    digest.update(content)
    return Once(idempotency_key, digest.hexdigest())


IdempotencyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Any unique text; a request repeated with its key creates once and gets the same answer.",
    ),
]


async def _once(request: Request, idempotency_key: IdempotencyHeader = None) -> Once:
    return once_for(request, idempotency_key, await request.body())


Idempotent = Annotated[Once, Depends(_once)]


def _lock_number(key_id: str, key: str) -> int:
    digest = hashlib.sha256(f"{key_id}\n{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _seal(body: bytes, credential: str) -> bytes:
    """nonce + tag + body XOR SHAKE-256(nonce, credential); a fresh nonce each time."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + _tag(nonce, body, credential) + _xor(body, nonce, credential)


def _unseal(sealed: bytes, credential: str) -> bytes:
    nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    tag, body = rest[:_TAG_BYTES], _xor(rest[_TAG_BYTES:], nonce, credential)
    if not secrets.compare_digest(tag, _tag(nonce, body, credential)):
        raise Problem(
            409,
            "answer_sealed",
            "The first answer was given to another login",
            "what was created is there; repeat the request with the key or session that sent it first",
        )
    return body


def _xor(body: bytes, nonce: bytes, credential: str) -> bytes:
    stream = hashlib.shake_256(b"deft answer\n" + nonce + credential.encode()).digest(len(body))
    return bytes(a ^ b for a, b in zip(body, stream, strict=True))


def _tag(nonce: bytes, body: bytes, credential: str) -> bytes:
    return hashlib.sha3_256(b"deft tag\n" + nonce + credential.encode() + b"\n" + body).digest()
