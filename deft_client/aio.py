"""The asynchronous client: the same calls as ``deft_client.client``, awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import stamina

from deft_client import _protocol as protocol
from deft_client import calls
from deft_client.aio_experiment_resources import Experiments
from deft_client.aio_generation_resources import ImportedGenerations
from deft_client.aio_resources import Datasets, Jobs, Keys
from deft_client.aio_study_resources import Studies
from deft_client.call import Call
from deft_client.models import Artifact, Event
from deft_client.transport import http

T = TypeVar("T")


class AsyncDeftClient:
    """A DEFT service: ``datasets``, ``generations``, ``jobs``, ``experiments``, ``studies``, ``keys``.

    Calls that change something carry an idempotency key, so that a retry never does it twice. Errors are
    those of ``deft_client.errors``.

    Args:
        base_url: for example ``http://127.0.0.1:8000``.
        api_key: sent as ``Authorization: Bearer``.
        timeout: seconds for one answer.
    """

    def __init__(self, base_url: str, api_key: str | None = None, *, timeout: float = 30.0) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = http.AsyncClient(base_url=base_url, headers=headers, timeout=timeout)
        self.datasets = Datasets(self)
        self.jobs = Jobs(self)
        self.generations = ImportedGenerations(self)
        self.experiments = Experiments(self)
        self.studies = Studies(self)
        self.keys = Keys(self)

    async def __aenter__(self) -> AsyncDeftClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def run(self, call: Call[T]) -> T:
        """Send a call, with retries where it may be repeated."""
        attempts = protocol.ATTEMPTS if call.repeatable else 1
        try:
            async for attempt in stamina.retry_context(
                on=protocol.is_transient, attempts=attempts, timeout=60.0
            ):
                with attempt:
                    return call.parse(protocol.answer_of(await self._send(call)))
        except Exception as error:
            raise protocol.final(error) from error
        raise AssertionError("retry_context ends by returning or raising")

    async def _send(self, call: Call[Any]) -> http.Response:
        if call.file is None:
            response = await self._http.request(
                call.method, call.path, params=call.params, json=call.json, headers=call.headers
            )
        else:
            with protocol.CountedFile(call.file, call.on_bytes) as file:
                response = await self._http.request(
                    call.method,
                    call.path,
                    data=call.json,
                    files={"file": (call.file.name, file, "application/octet-stream")},
                    headers=call.headers,
                    timeout=http.Timeout(30.0, read=None, write=None),
                )
        protocol.raise_for_problem(response)
        return response

    async def stream_events(self, job_id: str, after: int) -> AsyncIterator[Event]:
        """Events from ``after`` on until the job ends, across broken connections."""
        parser = protocol.EventParser(after)
        while True:
            try:
                async for event in self._events_once(job_id, parser):
                    yield event
                    if protocol.ends_stream(event):
                        return
                if (await self.run(calls.retrieve_job(job_id))).ended:
                    async for event in self._remaining_events(job_id, parser.last):
                        yield event
                    return
            except Exception as error:
                if not protocol.is_transient(error):
                    raise
                await self.run(calls.retrieve_job(job_id))  # waits, with back-off, until the service answers

    async def _events_once(self, job_id: str, parser: protocol.EventParser) -> AsyncIterator[Event]:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(parser.last)}
        path = f"/jobs/{job_id}/events"
        async with self._http.stream(
            "GET", path, headers=headers, timeout=http.Timeout(30.0, read=60.0)
        ) as response:
            if response.status_code >= 400:
                await response.aread()
            protocol.raise_for_problem(response)
            async for line in response.aiter_lines():
                event = parser.feed(line)
                if event is not None:
                    yield event

    async def _remaining_events(self, job_id: str, after: int) -> AsyncIterator[Event]:
        while True:
            page = await self.run(calls.job_events(job_id, after, protocol.EVENTS_OF_A_PAGE))
            for event in page.data:
                yield event
                after = event.seq
            if not page.has_more:
                return

    async def fetch(self, job_id: str, artifact: Artifact, target: Path) -> Path:
        """Download one artifact; continues a partial file and checks the SHA-256."""
        download = protocol.Download(target, artifact.sha256)
        if download.done:
            return target
        try:
            async for attempt in stamina.retry_context(
                on=protocol.is_transient, attempts=protocol.ATTEMPTS, timeout=None
            ):
                with attempt:
                    await self._fetch_once(calls.artifact_path(job_id, artifact.name), download)
        except Exception as error:
            raise protocol.final(error) from error
        return download.finish()

    async def _fetch_once(self, path: str, download: protocol.Download) -> None:
        async with self._http.stream("GET", path, headers=download.headers()) as response:
            if response.status_code == http.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # every byte is there already
            if response.status_code >= 400:
                await response.aread()
            protocol.raise_for_problem(response)
            with download.partial.open(download.mode(response.status_code)) as file:
                async for chunk in response.aiter_raw():
                    file.write(chunk)
