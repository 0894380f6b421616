"""The service's resolver of the names in a spec: datasets by id, models by name, folder, hub id or job."""

from __future__ import annotations

import json
from pathlib import Path

from sqlalchemy.orm import Session

from app.db.job_stages import stages_of_jobs
from app.db.models import Dataset, DatasetStatus, Job, JobStatus, StageRun
from app.db.queries import find_dataset, find_generations, find_job
from app.settings import get_settings
from deft_engine.data.hub_dataset import HubDataset
from deft_engine.endpoints.spec import EndpointSpec
from deft_engine.errors import SpecError
from deft_engine.graders import FileScores
from deft_engine.model_names import resolve_endpoint, resolve_model
from deft_engine.mt_bench.files import FASTCHAT
from deft_engine.plan import DatasetRef, External, Made, Plan, Source, plan_generations
from deft_engine.planning import plan_job
from deft_engine.specs import AlignJob, GradeJob, RewardModelJob
from deft_engine.specs import Job as JobRequest
from deft_engine.stages import ImportSpec

_MODEL_STAGES = {"align": "train", "reward_model": "train_reward"}
_JOB_PREFIX = "job:"
_POLICY, _REWARD = "policy", "reward_model"
_CALLED = {_POLICY: "a policy (a language model)", _REWARD: "a reward model"}


class ServiceResolver:
    """A ``plan.Resolver`` over the database and the allowed folders; notes the datasets it was asked for."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.datasets: dict[str, Dataset] = {}  # pointer -> dataset

    def dataset(self, name: str, pointer: str) -> DatasetRef:
        """An uploaded dataset by its id; one that is still being read is waited for."""
        found = self._found(name, pointer)
        if found.summary is not None and found.summary["format"] == FASTCHAT:
            raise SpecError(
                f"dataset {name} holds questions or answers in FastChat's format, and no samples",
                hint="name it in a job of kind judge; here, name preference data",
                code="unfit_dataset",
                pointer=pointer,
            )
        return dataset_ref(found)

    def file(self, name: str, pointer: str) -> External:
        """An upload in FastChat's format; one that is still being read is taken at its word."""
        found = self._found(name, pointer)
        if found.summary is not None and found.summary["format"] != FASTCHAT:
            raise SpecError(
                f"dataset {name} is in the format {found.summary['format']}, not in FastChat's",
                hint='upload rows with "question_id" and "turns" (questions) or "choices" (answers)',
                code="unfit_dataset",
                pointer=pointer,
            )
        if found.hub is not None:
            raise SpecError(
                f"dataset {name} comes from a hub, and a judge's files are uploads",
                hint="download the file and upload it",
                code="unfit_dataset",
                pointer=pointer,
            )
        return External(f"upload:{found.sha256}", found.sha256)

    def generations(self, name: str, samples: Made, pointer: str) -> External:
        """Imported generations by their id; they must answer these samples."""
        found = find_generations(self._session, name)
        if found is None:
            raise SpecError(
                f"there are no generations {name!r}",
                hint="import them by POST /generations, or see GET /generations",
                code="unknown_generations",
                pointer=pointer,
            )
        upload = External(f"upload:{found.sha256}", found.sha256)
        made = self._session.get_one(StageRun, found.import_run_id)
        if made.fingerprint != plan_generations(upload, samples).fingerprint:
            raise SpecError(
                f"generations {name} answer dataset {found.answers_dataset_id}, not this eval_dataset",
                hint=f"set eval_dataset to {found.answers_dataset_id}, or import answers to this one",
                code="unfit_generations",
                pointer=pointer,
            )
        if found.status is DatasetStatus.INVALID:
            why = (found.error or {}).get("message", "they could not be read")
            raise SpecError(
                f"generations {name} are invalid: {why}",
                hint="correct the file and import it again",
                code="invalid_generations",
                pointer=pointer,
            )
        self.datasets[pointer] = found
        return upload

    def _found(self, name: str, pointer: str) -> Dataset:
        """A dataset that can be named, which is noted. Raises as ``dataset``."""
        found = find_dataset(self._session, name)
        if found is None:
            raise SpecError(
                f"there is no dataset {name!r}",
                hint="upload one by POST /datasets, or see GET /datasets",
                code="unknown_dataset",
                pointer=pointer,
            )
        if found.status is DatasetStatus.INVALID:
            why = (found.error or {}).get("message", "it could not be read")
            raise SpecError(
                f"dataset {name} is invalid: {why}",
                hint="correct the file and upload it again",
                code="invalid_dataset",
                pointer=pointer,
            )
        self.datasets[pointer] = found
        return found

    def model(self, name: str, revision: str | None, pointer: str) -> Source:
        """A built-in model, a folder below the allowed roots, a hub id, or the model that a job makes."""
        wanted = _REWARD if pointer.endswith(("/grader/model", "/reward_model")) else _POLICY
        if name.startswith(_JOB_PREFIX):
            return self._model_of_job(name, revision, pointer, wanted)
        source = resolve_model(name, revision, pointer, get_settings().allowed_model_roots)
        _check_kind(name, _kind_of(source), pointer, wanted)
        return source

    def endpoint(self, spec: EndpointSpec, pointer: str) -> External:
        """An endpoint whose host the operator allows."""
        return resolve_endpoint(spec, pointer, get_settings().allowed_endpoint_hosts)

    def _model_of_job(self, name: str, revision: str | None, pointer: str, wanted: str) -> Made:
        job = find_job(self._session, name.removeprefix(_JOB_PREFIX))
        if job is None:
            raise _unusable(name, "there is no such job", "see GET /jobs", pointer)
        if job.kind not in _MODEL_STAGES:
            advice = "name a job of kind align or reward_model"
            raise _unusable(name, f"a job of kind {job.kind} makes no model", advice, pointer)
        if job.status in (JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.CANCELLING):
            raise _unusable(
                name, f"the job's status is {job.status}", "send it again and name the new job", pointer
            )
        if revision is not None:
            raise _unusable(name, "a job's model has no revisions", "set revision to null", pointer)
        _check_kind(name, _REWARD if job.kind == "reward_model" else _POLICY, pointer, wanted)
        return Made(self._model_fingerprint(job), "model")

    def _model_fingerprint(self, job: Job) -> str:
        stages = stages_of_jobs(self._session, [job.id])[job.id]
        return next(stage.fingerprint for stage in stages if stage.stage == _MODEL_STAGES[job.kind])


def dataset_ref(dataset: Dataset) -> DatasetRef:
    """The upload of a dataset and how it is read."""
    spec = ImportSpec.model_validate({"format": dataset.requested_format, "subset": dataset.subset})
    if dataset.hub is not None:
        uri = HubDataset.model_validate(dataset.hub).uri
        return DatasetRef(External(uri, uri), spec)
    return DatasetRef(External(f"upload:{dataset.sha256}", dataset.sha256), spec)


def plan_for(session: Session, spec: JobRequest) -> tuple[Plan, dict[str, Dataset]]:
    """A job's plan, and the datasets that its spec names by their pointers.

    Raises:
        SpecError: a name cannot be resolved, or names something unfit.
    """
    resolver = ServiceResolver(session)
    plan = plan_job(spec, resolver)
    _check_scores(spec, resolver.datasets)
    return plan, resolver.datasets


def _check_scores(spec: JobRequest, datasets: dict[str, Dataset]) -> None:
    """A grader or a method that needs the file's scores needs all of them; what is known now is said now."""
    deft = spec.deft if isinstance(spec, AlignJob | GradeJob) else None
    if deft is not None and isinstance(deft.grader.scorer(), FileScores):
        who, pointer = f"the grader {deft.grader.name} takes the file's scores", "/deft/grader"
        hint = 'name a reward model: "deft": {"grader": {"name": "reward_model", "model": "job:..."}}'
    elif deft is None and isinstance(spec, AlignJob | RewardModelJob) and spec.method.needs_rewards:
        who, pointer = f"this form of the method {spec.method.name} needs rewards", "/method"
        hint = "upload data with a score for each response, or take a form of the method without rewards"
    else:
        return
    dataset = datasets["/dataset"]
    if dataset.summary is None or dataset.summary["scored"] == dataset.summary["samples"]:
        return
    raise SpecError(
        f"{who}, but of the {dataset.summary['samples']} samples of dataset {dataset.id} "
        f"only {dataset.summary['scored']} carry a score for each response",
        hint=hint,
        code="no_scores",
        pointer=pointer,
    )


def _kind_of(source: External) -> str | None:
    """Policy or reward model, where a model says it; None where that shows when it is loaded."""
    if source.uri.startswith("builtin:"):
        return _POLICY
    if not source.uri.startswith("path:"):
        return None
    card = Path(source.uri.removeprefix("path:")) / "deft.json"
    try:
        kind = json.loads(card.read_bytes()).get("kind")
    except (OSError, ValueError, AttributeError):
        return None
    return kind if kind in _CALLED else None


def _check_kind(name: str, kind: str | None, pointer: str, wanted: str) -> None:
    if kind is None or kind == wanted:
        return
    advice = (
        "train one by a job of kind reward_model and name it as job:<id>"
        if wanted == _REWARD
        else "name a language model, for example tiny"
    )
    raise _unusable(name, f"it is {_CALLED[kind]}, and {_CALLED[wanted]} is needed here", advice, pointer)


def _unusable(name: str, found: str, advice: str, pointer: str) -> SpecError:
    return SpecError(f"model {name!r}: {found}", hint=advice, code="unusable_model", pointer=pointer)
