"""Which service a command talks to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import typer

from deft_client.client import DeftClient
from deft_client.errors import DeftClientError


class NoService(DeftClientError):
    """No service was named and none runs on this machine."""


@dataclass(frozen=True)
class Connection:
    """What the command line and the environment say; unset parts come from ``home/service.json``."""

    url: str | None
    key: str | None
    home: Path

    def client(self) -> DeftClient:
        """A client for the service.

        Raises:
            NoService: nothing tells where it is.
        """
        if self.url is not None:
            return DeftClient(self.url, self.key)
        announced = self.home / "service.json"
        if not announced.exists():
            raise NoService(
                f"no service runs in {self.home}: start one with `deft up`, or name one by --url and --key "
                "(or DEFT_URL and DEFT_API_KEY)"
            )
        service = json.loads(announced.read_text(encoding="utf-8"))
        key = self.key or Path(service["admin_key_file"]).read_text(encoding="utf-8").strip()
        return DeftClient(service["url"], key)


def client_of(context: typer.Context) -> DeftClient:
    """The client of a command's context."""
    connection: Connection = context.obj
    return connection.client()
