"""A data set on the Hugging Face hub, as a request and as a stage's input name it."""

from __future__ import annotations

import os
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints

from deft_engine.base import Spec, Text
from deft_engine.endpoints.hosts import AllowedHosts
from deft_engine.errors import EndpointError

URI_SCHEME = "hub-dataset:"
"""How a stage's input that is a data set on the hub starts."""

_ENDPOINT_VARIABLE = "HF_ENDPOINT"
_ENDPOINT = "https://huggingface.co"
_PART = r"[A-Za-z0-9][\w.-]{0,95}"
_PORTS = {"http": 80, "https": 443}


def _folder(path: str) -> str:
    parts = path.strip("/").split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError("is no folder of a repository; write it without a leading slash, . or ..")
    return "/".join(parts)


class HubDataset(Spec):
    """Rows of a data set's files: those of one split, below a folder if one is named."""

    hub: Annotated[Text, StringConstraints(pattern=rf"^{_PART}/{_PART}$")]
    """``org/name``."""
    data_dir: (
        Annotated[Text, StringConstraints(min_length=1, max_length=400), AfterValidator(_folder)] | None
    ) = None
    split: Annotated[Text, StringConstraints(pattern=r"^\w[\w.-]{0,99}$")]
    """Files named so (``train.jsonl.gz``, ``train-00000-of-00002.parquet``), or in a folder named so."""
    revision: Annotated[Text, StringConstraints(pattern=r"^[\w.-]+(/[\w.-]+)*$", max_length=200)] = "main"
    """A branch, a tag or a commit; what a branch held is known by its name, so name a commit."""
    limit: int | None = Field(None, ge=1)
    """The first so many rows."""

    @property
    def uri(self) -> str:
        """All of it, as a stage's input and as its identity."""
        return URI_SCHEME + self.model_dump_json()

    @classmethod
    def from_uri(cls, uri: str) -> Self:
        """The inverse of ``uri``."""
        return cls.model_validate_json(uri.removeprefix(URI_SCHEME))


def hub_address() -> str:
    """The hub's address: ``HF_ENDPOINT``, or the public hub's."""
    return (os.environ.get(_ENDPOINT_VARIABLE) or _ENDPOINT).rstrip("/")


def check_hub(allowed: AllowedHosts) -> None:
    """Refuse to ask a hub whose host is not listed.

    Raises:
        EndpointError: it is not, or ``HF_ENDPOINT`` is no address.
    """
    check_url(hub_address(), allowed)


def check_url(url: str, allowed: AllowedHosts) -> None:
    """Refuse an address whose host is not listed. Raises as ``check_hub``."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise EndpointError(f"{_ENDPOINT_VARIABLE} is {url!r}, no http or https address", hint="correct it")
    allowed.check(parts.hostname, parts.port or _PORTS[parts.scheme])
