"""What the asynchronous client offers, by resource."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deft_client import _protocol as protocol
from deft_client import calls
from deft_client.calls import JobRequest
from deft_client.errors import JobFailed, NotFound
from deft_client.models import Artifact, Dataset, Estimate, Event, Job, Key, LedgerEntry, Page, Sample, Series
from deft_client.waiting import Watch, async_wait_until

if TYPE_CHECKING:
    from deft_client.aio import AsyncDeftClient


class Datasets:
    """``client.datasets``."""

    def __init__(self, client: AsyncDeftClient) -> None:
        self._client = client

    async def upload(
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
        return await self._client.run(call)

    async def from_study(
        self,
        study_id: str,
        *,
        ties: Literal["leave_out", "keep"] = "leave_out",
        name: str | None = None,
        idempotency_key: str | None = None,
    ) -> Dataset:
        """The votes of a study as data; pairs without a preference are left out, or kept in both orders."""
        return await self._client.run(calls.dataset_of_study(study_id, ties, name, idempotency_key))

    async def import_from_hub(
        self,
        hub: str,
        *,
        split: str,
        data_dir: str | None = None,
        revision: str | None = None,
        limit: int | None = None,
        name: str | None = None,
        format: str | None = None,
        subset: str | None = None,
        idempotency_key: str | None = None,
    ) -> Dataset:
        """Have the service read a data set of the Hugging Face hub, such as ``Anthropic/hh-rlhf``."""
        fields = calls.hub_fields(
            hub=hub,
            split=split,
            data_dir=data_dir,
            revision=revision,
            limit=limit,
            name=name,
            format=format,
            subset=subset,
        )
        return await self._client.run(calls.import_dataset(fields, idempotency_key))

    async def wait(self, dataset_id: str, *, timeout: float | None = None, poll: float = 0.5) -> Dataset:
        """Until the dataset is ready or invalid."""
        return await async_wait_until(
            lambda dataset: dataset.status != "processing",
            lambda: self.retrieve(dataset_id),
            Watch(f"dataset {dataset_id}", timeout),
            poll,
        )

    async def retrieve(self, dataset_id: str) -> Dataset:
        """One dataset."""
        return await self._client.run(calls.retrieve_dataset(dataset_id))

    async def list(self, *, limit: int | None = None, after: str | None = None) -> Page[Dataset]:
        """Datasets, newest first."""
        return await self._client.run(calls.list_datasets(limit, after))

    async def validation(
        self, dataset_id: str, *, limit: int | None = None, after: str | None = None
    ) -> Page[LedgerEntry]:
        """Rows of the upload that were not used, and why."""
        return await self._client.run(calls.dataset_validation(dataset_id, limit, after))

    async def samples(
        self,
        dataset_id: str,
        *,
        level: str | None = None,
        subset: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Sample]:
        """Samples as they were read."""
        return await self._client.run(calls.dataset_samples(dataset_id, level, subset, limit, after))

    async def delete(self, dataset_id: str) -> None:
        """Remove a dataset that no live job uses."""
        await self._client.run(calls.delete_dataset(dataset_id))


class Jobs:
    """``client.jobs``."""

    def __init__(self, client: AsyncDeftClient) -> None:
        self._client = client

    async def create(
        self, spec: JobRequest, *, reuse: bool = True, idempotency_key: str | None = None
    ) -> Job:
        """Send a job: a dict as in docs/http-api.md, or a spec of ``deft_engine.specs``."""
        return await self._client.run(calls.create_job(spec, reuse, idempotency_key))

    async def estimate(self, spec: JobRequest, *, reuse: bool = True) -> Estimate:
        """Validate a job and estimate its cost, without creating it."""
        return await self._client.run(calls.estimate_job(spec, reuse))

    async def retrieve(self, job_id: str) -> Job:
        """One job."""
        return await self._client.run(calls.retrieve_job(job_id))

    async def list(
        self,
        *,
        status: str | None = None,
        kind: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Page[Job]:
        """Jobs, newest first."""
        return await self._client.run(calls.list_jobs(status, kind, limit, after))

    async def cancel(self, job_id: str) -> Job:
        """Stop a job for good."""
        return await self._client.run(calls.move_job(job_id, "cancel"))

    async def pause(self, job_id: str) -> Job:
        """Stop a job at its next checkpoint, to go on later."""
        return await self._client.run(calls.move_job(job_id, "pause"))

    async def resume(self, job_id: str) -> Job:
        """Go on with a paused job."""
        return await self._client.run(calls.move_job(job_id, "resume"))

    async def wait(
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
        job = await async_wait_until(
            lambda job: job.ended,
            lambda: self.retrieve(job_id),
            Watch(f"job {job_id}", timeout),
            poll,
            on_progress,
        )
        if job.status != "succeeded":
            raise JobFailed(job)
        return job

    def events(self, job_id: str, *, after: int = 0) -> AsyncIterator[Event]:
        """Events as they happen, until the job ends."""
        return self._client.stream_events(job_id, after)

    async def metrics(
        self,
        job_id: str,
        names: Sequence[str] | None = None,
        *,
        from_step: int | None = None,
        to_step: int | None = None,
        max_points: int | None = None,
    ) -> Page[Series]:
        """Series of a job; all of them without ``names``."""
        return await self._client.run(calls.job_metrics(job_id, names, from_step, to_step, max_points))

    async def artifacts(self, job_id: str) -> Sequence[Artifact]:
        """Everything that the job's stages made so far."""
        return (await self._client.run(calls.job_artifacts(job_id))).data

    async def download(self, job_id: str, name: str, target: str | Path) -> Path:
        """Download an artifact to a file, or a folder of artifacts (``model``) below a folder ``target``."""
        by_name = {artifact.name: artifact for artifact in await self.artifacts(job_id)}
        names = protocol.selected(by_name, name)
        if not names:
            raise NotFound(404, {"code": "not_found", "detail": f"{job_id} has no artifact {name!r}"})
        if names == [name]:
            return await self._client.fetch(job_id, by_name[name], Path(target))
        for each in names:
            path = protocol.below(Path(target), each.removeprefix(f"{name}/"))
            await self._client.fetch(job_id, by_name[each], path)
        return Path(target)


class Keys:
    """``client.keys``, for admins."""

    def __init__(self, client: AsyncDeftClient) -> None:
        self._client = client

    async def create(self, *, name: str, role: str, idempotency_key: str | None = None) -> Key:
        """A new key; ``key.key`` is shown once."""
        return await self._client.run(calls.create_key(name, role, idempotency_key))

    async def list(self, *, limit: int | None = None, after: str | None = None) -> Page[Key]:
        """Keys, without their secrets."""
        return await self._client.run(calls.list_keys(limit, after))

    async def revoke(self, key_id: str) -> None:
        """Make a key useless."""
        await self._client.run(calls.revoke_key(key_id))
