"""What a job says of an endpoint. No key is ever part of it, only the name of the variable that holds one."""

from __future__ import annotations

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints

from deft_engine.base import ModelName, Spec, Text

KEY_PREFIX = "DEFT_ENDPOINT_KEY_"
"""Variables whose names start so may be named as an endpoint's key, and no others."""

URI_SCHEME = "endpoint:"
"""How a stage's input that is an endpoint starts."""

_PATH = "/chat/completions"


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"is no URL: {error}; write for example https://api.example.com/v1") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("is no http or https URL with a host; write for example https://api.example.com/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user or password; set a variable for the key and name it in api_key_env")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError("holds a query or fragment; give the address alone, keys belong to api_key_env")
    return url.rstrip("/").removesuffix(_PATH)


EndpointUrl = Annotated[
    str,
    StringConstraints(min_length=8, max_length=2048, pattern=r"^[!-~]+$"),
    AfterValidator(_checked_url),
]


class EndpointSpec(Spec):
    """An OpenAI-compatible server and how it may be used; only ``url`` and ``model`` tell results apart."""

    url: EndpointUrl
    """The base address, to which ``/chat/completions`` is added."""
    model: ModelName
    """The model's name on that server."""
    api_key_env: Annotated[Text, StringConstraints(pattern=rf"^{KEY_PREFIX}[A-Z0-9_]{{1,64}}$")] | None = None
    """Name of the environment variable, of the workers, that holds the key."""
    concurrency: int = Field(8, ge=1, le=64)
    """Requests under way at once."""
    requests_per_minute: int | None = Field(None, ge=1, le=1_000_000)
    token_budget: int | None = Field(None, ge=1, le=10**12)
    """Prompt and completion tokens that a stage may spend; null: no cap."""
    timeout: float = Field(120.0, gt=0, le=3600)
    """Seconds for one whole answer."""

    @property
    def completions_url(self) -> str:
        """Where requests go."""
        return self.url + _PATH

    @property
    def identity(self) -> str:
        """What a fingerprint sees of it."""
        return f"{URI_SCHEME}{self.url}#{self.model}"

    @property
    def uri(self) -> str:
        """All of it, as a stage's input."""
        return URI_SCHEME + self.model_dump_json()

    @classmethod
    def from_uri(cls, uri: str) -> Self:
        """The inverse of ``uri``."""
        return cls.model_validate_json(uri.removeprefix(URI_SCHEME))


class EndpointModel(Spec):
    """A model that is asked over HTTP instead of loaded."""

    endpoint: EndpointSpec
