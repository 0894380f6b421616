"""The protocol: what is asked, and how an answer, or what came in its place, is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

from deft_engine.canonical import canonical_json, sha256_hex
from deft_engine.errors import EndpointError, EndpointUnavailable
from deft_engine.types import Message

_TOKENS_PER_MESSAGE = 16  # role and separators of a chat template
_TOKENS_PER_REQUEST = 64  # a system prompt that a template adds by itself
_QUOTED = 300  # characters of a server's own words in an error
_WRONG_ADDRESS = "check endpoint.url: it is the base address, such as https://api.example.com/v1"


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """Messages and how they are to be answered; temperature 0 is greedy decoding."""

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    seed: int | None = None

    def body(self, model: str) -> bytes:
        """The request's JSON, the same bytes for the same request."""
        fields: dict[str, Any] = {
            "model": model,
            "messages": [message._asdict() for message in self.messages],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "stream": False,
        }
        if self.seed is not None:
            fields["seed"] = self.seed
        return canonical_json(fields)

    @property
    def worst_case(self) -> int:
        """Tokens that it takes at most: a byte of a text is a token at most, whatever the tokenizer."""
        prompt = sum(len(message.content.encode()) + _TOKENS_PER_MESSAGE for message in self.messages)
        return prompt + _TOKENS_PER_REQUEST + self.max_tokens


def request_key(url: str, body: bytes) -> str:
    """The hash by which an answer is kept."""
    return sha256_hex(url.encode() + b"\n" + body)


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A completion. ``tokens`` (prompt and completion) is None where the server does not tell."""

    text: str
    tokens: int | None = None
    completion_tokens: int | None = None
    cut: bool = False
    """It ended at ``max_tokens``."""

    def as_dict(self) -> dict[str, Any]:
        """As it is kept."""
        return {
            "text": self.text,
            "tokens": self.tokens,
            "completion_tokens": self.completion_tokens,
            "cut": self.cut,
        }

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Self:
        """The inverse of ``as_dict``."""
        return cls(**kept)


def read_answer(status: int, headers: Mapping[str, str], content: bytes) -> ChatAnswer:
    """The completion in a server's answer.

    Raises:
        EndpointUnavailable: it could not answer now (429, 5xx).
        EndpointError: it refused (other 4xx), or this is no chat completion; the codes tell them apart.
    """
    if status != 200:
        raise _refusal(status, headers, content)
    text = content.decode("utf-8", "replace").lstrip()
    if text.startswith("<") or "html" in headers.get("content-type", ""):
        raise EndpointError(
            f"it answered with a page of HTML, not with JSON: {_quoted(text)}",
            hint=_WRONG_ADDRESS,
            code="endpoint_html",
        )
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"it answered with what is no JSON ({error}): {_quoted(text)}") from error
    return _completion(answer)


def _completion(answer: Any) -> ChatAnswer:
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise _malformed("its JSON has no choices[0].message.content") from error
    if text is not None and not isinstance(text, str):
        raise _malformed(f"its choices[0].message.content is {type(text).__name__}, not a text")
    usage = answer.get("usage") or {}
    prompt, completion = (_count(usage, f"{name}_tokens") for name in ("prompt", "completion"))
    known = prompt is not None and completion is not None
    return ChatAnswer(
        text=_whole_characters(text or ""),
        tokens=(prompt or 0) + (completion or 0) if known else None,
        completion_tokens=completion,
        cut=choice.get("finish_reason") == "length",
    )


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and 0 <= value < 2**53 else None


def _whole_characters(text: str) -> str:
    """Halves of surrogate pairs, which JSON can hold and UTF-8 cannot, become replacement characters."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _refusal(status: int, headers: Mapping[str, str], content: bytes) -> EndpointError:
    """What a status other than 200 means; pages of HTML are not quoted."""
    code, said = _own_words(content)
    because = f": {said}" if said else ""
    if 300 <= status < 400:
        return EndpointError(
            f"it redirects (status {status}), which is not followed",
            hint="put the address that it leads to into endpoint.url",
            code="endpoint_redirect",
        )
    if status == 429 and code != "insufficient_quota":
        return EndpointUnavailable(
            f"it limits the rate of requests (status 429){because}",
            hint="lower endpoint.concurrency, or set endpoint.requests_per_minute",
            code="endpoint_rate_limited",
            retry_after=_retry_after(headers),
        )
    if status >= 500 or status in (408, 425):
        return EndpointUnavailable(
            f"it failed (status {status}){because}",
            hint="see the server's own log; send the job again when it is well",
            code="endpoint_server_error",
            retry_after=_retry_after(headers),
        )
    if status in (401, 403):
        return EndpointError(
            f"it does not accept the key (status {status}){because}",
            hint="check the variable that endpoint.api_key_env names",
            code="endpoint_unauthorised",
        )
    hint = _WRONG_ADDRESS if status in (404, 405) else "correct the endpoint's model or the job's settings"
    return EndpointError(
        f"it refused the request (status {status}){because}", hint=hint, code="endpoint_refused"
    )


def _own_words(content: bytes) -> tuple[str | None, str]:
    """The error's code and message, in OpenAI's form or near it."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        text = content.decode("utf-8", "replace").strip()
        return None, "" if text.startswith("<") else _quoted(text)
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    if not isinstance(error, dict):
        return None, _quoted(str(error))
    said = error.get("message") or error.get("detail") or ""
    return str(error.get("code")), _quoted(str(said))


def _quoted(text: str) -> str:
    line = " ".join(_whole_characters(text).split())
    return line if len(line) <= _QUOTED else line[:_QUOTED] + " [...]"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date."""
    value = headers.get("retry-after", "")
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _malformed(found: str) -> EndpointError:
    return EndpointError(found, hint=_WRONG_ADDRESS, code="endpoint_invalid_json")
