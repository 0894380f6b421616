"""The synchronous client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import stamina

from deft_client import _protocol as protocol
from deft_client import calls
from deft_client.calls import Call, JobRequest
from deft_client.errors import JobFailed, NotFound, WaitTimeout
from deft_client.models import (
    Annotator,
    Artifact,
    Assignment,
    Dataset,
    Estimate,
    Event,
    Job,
    Key,
    LedgerEntry,
    Page,
    RenewedLink,
    Sample,
    Series,
    Study,
)
from deft_client.transport import http

T = TypeVar("T")


class DeftClient:
    """A DEFT service: ``datasets``, ``jobs``, ``studies``, ``keys``.

    Calls that change something carry an idempotency key, so that a retry never does it twice. Errors are
    those of ``deft_client.errors``.

    Args:
        base_url: for example ``http://127.0.0.1:8000``.
        api_key: sent as ``Authorization: Bearer``.
        timeout: seconds for one answer.
    """

    def __init__(self, base_url: str, api_key: str | None = None, *, timeout: float = 30.0) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = http.Client(base_url=base_url, headers=headers, timeout=timeout)
        self.datasets = Datasets(self)
        self.jobs = Jobs(self)
        self.studies = Studies(self)
        self.keys = Keys(self)

    def __enter__(self) -> DeftClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def run(self, call: Call[T]) -> T:
        """Send a call, with retries where it may be repeated."""
        attempts = protocol.ATTEMPTS if call.repeatable else 1
        try:
            for attempt in stamina.retry_context(on=protocol.is_transient, attempts=attempts, timeout=60.0):
                with attempt:
                    return call.parse(protocol.answer_of(self._send(call)))
        except Exception as error:
            raise protocol.final(error) from error
        raise AssertionError("retry_context ends by returning or raising")

    def _send(self, call: Call[Any]) -> http.Response:
        if call.file is None:
            response = self._http.request(
                call.method, call.path, params=call.params, json=call.json, headers=call.headers
            )
        else:
            with protocol.CountedFile(call.file, call.on_bytes) as file:
                response = self._http.request(
                    call.method,
                    call.path,
                    data=call.json,
                    files={"file": (call.file.name, file, "application/octet-stream")},
                    headers=call.headers,
                    timeout=http.Timeout(30.0, read=None, write=None),
                )
        protocol.raise_for_problem(response)
        return response

    def stream_events(self, job_id: str, after: int) -> Iterator[Event]:
        """Events from ``after`` on until the job ends, across broken connections."""
        parser = protocol.EventParser(after)
        while True:
            try:
                for event in self._events_once(job_id, parser):
                    yield event
                    if protocol.ends_stream(event):
                        return
                if self.run(calls.retrieve_job(job_id)).ended:
                    yield from self._remaining_events(job_id, parser.last)
                    return
            except Exception as error:
                if not protocol.is_transient(error):
                    raise
                self.run(calls.retrieve_job(job_id))  # waits, with back-off, until the service answers

    def _events_once(self, job_id: str, parser: protocol.EventParser) -> Iterator[Event]:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(parser.last)}
        path = f"/jobs/{job_id}/events"
        with self._http.stream(
            "GET", path, headers=headers, timeout=http.Timeout(30.0, read=60.0)
        ) as response:
            if response.status_code >= 400:
                response.read()
            protocol.raise_for_problem(response)
            for line in response.iter_lines():
                event = parser.feed(line)
                if event is not None:
                    yield event

    def _remaining_events(self, job_id: str, after: int) -> Iterator[Event]:
        while True:
            page = self.run(calls.job_events(job_id, after, protocol.EVENTS_OF_A_PAGE))
            for event in page.data:
                yield event
                after = event.seq
            if not page.has_more:
                return

    def fetch(self, job_id: str, artifact: Artifact, target: Path) -> Path:
        """Download one artifact; continues a partial file and checks the SHA-256."""
        download = protocol.Download(target, artifact.sha256)
        if download.done:
            return target
        try:
            for attempt in stamina.retry_context(
                on=protocol.is_transient, attempts=protocol.ATTEMPTS, timeout=None
            ):
                with attempt:
                    self._fetch_once(calls.artifact_path(job_id, artifact.name), download)
        except Exception as error:
            raise protocol.final(error) from error
        return download.finish()

    def _fetch_once(self, path: str, download: protocol.Download) -> None:
        with self._http.stream("GET", path, headers=download.headers()) as response:
            if response.status_code == http.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # every byte is there already
            if response.status_code >= 400:
                response.read()
            protocol.raise_for_problem(response)
            with download.partial.open(download.mode(response.status_code)) as file:
                for chunk in response.iter_raw():
                    file.write(chunk)


class Datasets:
    """``client.datasets``."""

    def __init__(self, client: DeftClient) -> None:
        self._client = client

    def upload(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        format: str = "auto",
        subset: str | None = None,
        idempotency_key: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Dataset:
        """Send a file, streamed; it is read by the service afterwards (see :meth:`wait`).

        ``on_bytes`` is told how many more bytes were read from the file.
        """
        call = calls.upload_dataset(Path(path), name, format, subset, idempotency_key, on_bytes)
        return self._client.run(call)

    def wait(self, dataset_id: str, *, timeout: float | None = None, poll: float = 0.5) -> Dataset:
        """Until the dataset is ready or invalid."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            dataset = self.retrieve(dataset_id)
            if dataset.status != "processing":
                return dataset
            if deadline is not None and time.monotonic() > deadline:
                raise WaitTimeout(f"dataset {dataset_id} is still processing after {timeout:g} s")
            time.sleep(poll)

    def retrieve(self, dataset_id: str) -> Dataset:
        """One dataset."""
        return self._client.run(calls.retrieve_dataset(dataset_id))

    def list(self, *, limit: int | None = None, after: str | None = None) -> Page[Dataset]:
        """Datasets, newest first."""
        return self._client.run(calls.list_datasets(limit, after))

    def validation(
        self, dataset_id: str, *, limit: int | None = None, after: str | None = None
    ) -> Page[LedgerEntry]:
        """Rows of the upload that were not used, and why."""
        return self._client.run(calls.dataset_validation(dataset_id, limit, after))

    def samples(
        self,
        dataset_id: str,
        *,
        level: str | None = None,
        subset: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Sample]:
        """Samples as they were read."""
        return self._client.run(calls.dataset_samples(dataset_id, level, subset, limit, after))

    def delete(self, dataset_id: str) -> None:
        """Remove a dataset that no live job uses."""
        self._client.run(calls.delete_dataset(dataset_id))


class Jobs:
    """``client.jobs``."""

    def __init__(self, client: DeftClient) -> None:
        self._client = client

    def create(self, spec: JobRequest, *, reuse: bool = True, idempotency_key: str | None = None) -> Job:
        """Send a job: a dict as in docs/http-api.md, or a spec of ``deft_engine.specs``."""
        return self._client.run(calls.create_job(spec, reuse, idempotency_key))

    def estimate(self, spec: JobRequest, *, reuse: bool = True) -> Estimate:
        """Validate a job and estimate its cost, without creating it."""
        return self._client.run(calls.estimate_job(spec, reuse))

    def retrieve(self, job_id: str) -> Job:
        """One job."""
        return self._client.run(calls.retrieve_job(job_id))

    def list(
        self,
        *,
        status: str | None = None,
        kind: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Job]:
        """Jobs, newest first."""
        return self._client.run(calls.list_jobs(status, kind, limit, after))

    def cancel(self, job_id: str) -> Job:
        """Stop a job for good."""
        return self._client.run(calls.move_job(job_id, "cancel"))

    def pause(self, job_id: str) -> Job:
        """Stop a job at its next checkpoint, to go on later."""
        return self._client.run(calls.move_job(job_id, "pause"))

    def resume(self, job_id: str) -> Job:
        """Go on with a paused job."""
        return self._client.run(calls.move_job(job_id, "resume"))

    def wait(
        self,
        job_id: str,
        *,
        timeout: float | None = None,
        poll: float = 1.0,
        on_progress: Callable[[Job], None] | None = None,
    ) -> Job:
        """Until the job has succeeded; ``on_progress`` sees every state on the way.

        Raises:
            JobFailed: it failed or was cancelled.
            WaitTimeout: it was still under way after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            job = self.retrieve(job_id)
            if on_progress is not None:
                on_progress(job)
            if job.status == "succeeded":
                return job
            if job.ended:
                raise JobFailed(job)
            if deadline is not None and time.monotonic() > deadline:
                raise WaitTimeout(f"job {job_id} is {job.status} after {timeout:g} s")
            time.sleep(poll)

    def events(self, job_id: str, *, after: int = 0) -> Iterator[Event]:
        """Events as they happen, until the job ends."""
        return self._client.stream_events(job_id, after)

    def metrics(
        self,
        job_id: str,
        names: Sequence[str] | None = None,
        *,
        from_step: int | None = None,
        to_step: int | None = None,
        max_points: int | None = None,
    ) -> Page[Series]:
        """Series of a job; all of them without ``names``."""
        return self._client.run(calls.job_metrics(job_id, names, from_step, to_step, max_points))

    def artifacts(self, job_id: str) -> Sequence[Artifact]:
        """Everything that the job's stages made so far."""
        return self._client.run(calls.job_artifacts(job_id)).data

    def download(self, job_id: str, name: str, target: str | Path) -> Path:
        """Download an artifact to a file, or a folder of artifacts (``model``) below a folder ``target``."""
        by_name = {artifact.name: artifact for artifact in self.artifacts(job_id)}
        names = protocol.selected(by_name, name)
        if not names:
            raise NotFound(404, {"code": "not_found", "detail": f"{job_id} has no artifact {name!r}"})
        if names == [name]:
            return self._client.fetch(job_id, by_name[name], Path(target))
        for each in names:
            path = protocol.below(Path(target), each.removeprefix(f"{name}/"))
            self._client.fetch(job_id, by_name[each], path)
        return Path(target)


class Studies:
    """``client.studies``; a rater's client uses the last three methods."""

    def __init__(self, client: DeftClient) -> None:
        self._client = client

    def create(
        self,
        *,
        name: str,
        a: str,
        b: str,
        per_subset: int = 125,
        protocol: str = "paper",
        criteria: str | None = None,
        seed: int | None = None,
        idempotency_key: str | None = None,
    ) -> Study:
        """A blind comparison of jobs ``a`` and ``b``."""
        fields = {"name": name, "a": a, "b": b, "per_subset": per_subset, "protocol": protocol}
        fields |= {k: v for k, v in (("criteria", criteria), ("seed", seed)) if v is not None}
        return self._client.run(calls.create_study(fields, idempotency_key))

    def retrieve(self, study_id: str) -> Study:
        """One study."""
        return self._client.run(calls.retrieve_study(study_id))

    def list(self, *, limit: int | None = None, after: str | None = None) -> Page[Study]:
        """Studies, newest first."""
        return self._client.run(calls.list_studies(limit, after))

    def add_annotator(
        self, study_id: str, *, name: str, subsets: Sequence[str], idempotency_key: str | None = None
    ) -> Annotator:
        """A rater of some subsets, with a key and a personal link that are shown once."""
        return self._client.run(calls.add_annotator(study_id, name, subsets, idempotency_key))

    def renew_link(
        self, study_id: str, annotator_id: str, *, idempotency_key: str | None = None
    ) -> RenewedLink:
        """A new personal link for a rater; the old one ends, votes stay."""
        return self._client.run(calls.renew_link(study_id, annotator_id, idempotency_key))

    def revoke_annotator(self, study_id: str, annotator_id: str) -> Annotator:
        """End a rater's access for good; votes stay."""
        return self._client.run(calls.revoke_annotator(study_id, annotator_id))

    def unblind(self, study_id: str) -> Study:
        """Close a study for good; its results are final."""
        return self._client.run(calls.unblind_study(study_id))

    def results(self, study_id: str) -> dict[str, Any]:
        """Win, tie and lose per subset and in all, with intervals."""
        return self._client.run(calls.study_results(study_id))

    def next_assignment(self, study_id: str) -> Assignment | None:
        """The rater's next pair; None when all are done."""
        return self._client.run(calls.next_assignment(study_id))

    def vote(self, assignment_id: str, choice: str, comment: str | None = None) -> None:
        """``left``, ``tie`` or ``right``."""
        self._client.run(calls.vote(assignment_id, choice, comment))

    def undo(self, assignment_id: str) -> None:
        """Take a vote back."""
        self._client.run(calls.undo_vote(assignment_id))


class Keys:
    """``client.keys``, for admins."""

    def __init__(self, client: DeftClient) -> None:
        self._client = client

    def create(self, *, name: str, role: str, idempotency_key: str | None = None) -> Key:
        """A new key; ``key.key`` is shown once."""
        return self._client.run(calls.create_key(name, role, idempotency_key))

    def list(self, *, limit: int | None = None, after: str | None = None) -> Page[Key]:
        """Keys, without their secrets."""
        return self._client.run(calls.list_keys(limit, after))

    def revoke(self, key_id: str) -> None:
        """Make a key useless."""
        self._client.run(calls.revoke_key(key_id))
