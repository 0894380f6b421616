"""``client.experiments`` of the synchronous client."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from deft_client import calls
from deft_client.calls import ExperimentFile, JobRequest
from deft_client.models import Experiment, Page
from deft_client.waiting import Watch, wait_until

if TYPE_CHECKING:
    from deft_client.client import DeftClient


class Experiments:
    """``client.experiments``."""

    def __init__(self, client: DeftClient) -> None:
        self._client = client

    def create(self, spec: JobRequest, *, idempotency_key: str | None = None) -> Experiment:
        """Send an experiment: a job for each arm and seed."""
        return self._client.run(calls.create_experiment(spec, idempotency_key))

    def retrieve(self, experiment_id: str) -> Experiment:
        """One experiment, with its arms' jobs and its cost so far."""
        return self._client.run(calls.retrieve_experiment(experiment_id))

    def list(self, *, limit: int | None = None, after: str | None = None) -> Page[Experiment]:
        """Experiments, newest first."""
        return self._client.run(calls.list_experiments(limit, after))

    def cancel(self, experiment_id: str) -> Experiment:
        """End every job of an experiment that has not ended."""
        return self._client.run(calls.cancel_experiment(experiment_id))

    def results(self, experiment_id: str) -> dict[str, Any]:
        """The table so far: figures with intervals and differences, and each arm's cost."""
        return self._client.run(calls.experiment_results(experiment_id))

    def export(self, experiment_id: str, file: ExperimentFile, *, cases: bool = True) -> bytes:
        """The results as a file: every figure (CSV), the table (LaTeX), or the report (HTML).

        Without ``cases`` the report holds no text of the data or of the models.
        """
        return self._client.run(calls.export_experiment(experiment_id, file, cases))

    def wait(
        self,
        experiment_id: str,
        *,
        timeout: float | None = None,
        poll: float = 2.0,
        on_progress: Callable[[Experiment], None] | None = None,
    ) -> Experiment:
        """Until all its jobs have ended, however; ``on_progress`` sees every state on the way.

        Raises:
            WaitTimeout: it was still under way after ``timeout`` seconds.
        """
        return wait_until(
            lambda experiment: experiment.ended,
            lambda: self.retrieve(experiment_id),
            Watch(f"experiment {experiment_id}", timeout),
            poll,
            on_progress,
        )
