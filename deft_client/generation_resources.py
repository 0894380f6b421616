"""``client.generations`` of the synchronous client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from deft_client import calls
from deft_client.models import Generations, LedgerEntry, Page
from deft_client.waiting import Watch, wait_until

if TYPE_CHECKING:
    from deft_client.client import DeftClient


class ImportedGenerations:
    """``client.generations``."""

    def __init__(self, client: DeftClient) -> None:
        self._client = client

    def upload(
        self,
        path: str | Path,
        *,
        dataset: str,
        name: str | None = None,
        idempotency_key: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Generations:
        """Send answers to a dataset's prompts; the service matches them afterwards (see :meth:`wait`)."""
        call = calls.import_generations(Path(path), dataset, name, idempotency_key, on_bytes)
        return self._client.run(call)

    def wait(self, generations_id: str, *, timeout: float | None = None, poll: float = 0.5) -> Generations:
        """Until they are ready or invalid."""
        return wait_until(
            lambda generations: generations.status != "processing",
            lambda: self.retrieve(generations_id),
            Watch(f"generations {generations_id}", timeout),
            poll,
        )

    def retrieve(self, generations_id: str) -> Generations:
        """Imported generations."""
        return self._client.run(calls.retrieve_generations(generations_id))

    def list(self, *, limit: int | None = None, after: str | None = None) -> Page[Generations]:
        """Imported generations, newest first."""
        return self._client.run(calls.list_generations(limit, after))

    def validation(
        self, generations_id: str, *, limit: int | None = None, after: str | None = None
    ) -> Page[LedgerEntry]:
        """Rows that answer no sample, and why."""
        return self._client.run(calls.generations_validation(generations_id, limit, after))

    def delete(self, generations_id: str) -> None:
        """Remove generations that no live job uses."""
        self._client.run(calls.delete_generations(generations_id))
