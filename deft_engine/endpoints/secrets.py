"""An endpoint's key: read from the environment where it is needed, and nowhere shown."""

from __future__ import annotations

import os
from typing import Self

from deft_engine.errors import EndpointError

_SHORTEST_SECRET = 8  # what is shorter ("EMPTY", "none") keeps nobody out, and stands in ordinary text
_REDACTED = "[key]"


class ApiKey:
    """A key that shows itself in the Authorization header alone."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    @classmethod
    def from_environment(cls, variable: str | None) -> Self:
        """The key in a variable; of None the empty one.

        Raises:
            EndpointError: the variable is not set, or holds what no header can.
        """
        if variable is None:
            return cls("")
        value = os.environ.get(variable, "").strip()
        if not value:
            raise EndpointError(
                f"the environment variable {variable}, which is to hold the endpoint's key, is not set",
                hint="set it for the workers (or for deft run), or name another one in api_key_env",
                code="endpoint_key_missing",
            )
        if not (value.isascii() and value.isprintable()):
            raise EndpointError(
                f"the environment variable {variable} holds characters that no HTTP header can",
                hint="set it to the key alone, without line breaks",
                code="endpoint_key_missing",
            )
        return cls(value)

    @property
    def headers(self) -> dict[str, str]:
        """What a request carries."""
        return {"Authorization": f"Bearer {self._value}"} if self._value else {}

    def redact(self, text: str) -> str:
        """The text without the key, should a server have sent it back."""
        if len(self._value) < _SHORTEST_SECRET:
            return text
        return text.replace(self._value, _REDACTED)

    def __repr__(self) -> str:
        return "ApiKey(...)"
