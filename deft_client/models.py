"""What the service answers, typed. Fields that a newer service adds are kept, not refused."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """Any answer of the service."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())


T = TypeVar("T", bound=Answer)


class Page(Answer, Generic[T]):
    """A page of a list; ``after=page.data[-1].id`` gives the next."""

    data: list[T]
    has_more: bool = False


class FieldError(Answer):
    """One place in a request or file that is wrong."""

    pointer: str | None = None
    line: int | None = None
    code: str = ""
    detail: str = ""

    def __str__(self) -> str:
        place = self.pointer or (f"line {self.line}" if self.line is not None else "")
        return f"{place}: {self.detail}" if place else self.detail


class Dataset(Answer):
    """An uploaded file and what was read from it."""

    id: str
    name: str
    status: Literal["processing", "ready", "invalid"]
    sha256: str
    hub: dict[str, Any] | None = None
    format: str | None = None
    rows: int | None = None
    samples: int | None = None
    rejected: int | None = None
    responses_per_sample: dict[str, int] | None = None
    subsets: dict[str, int] | None = None
    error: dict[str, Any] | None = None


class Generations(Answer):
    """Answers made elsewhere to a dataset's prompts, and how many of them could be matched."""

    id: str
    name: str
    dataset: str
    status: Literal["processing", "ready", "invalid"]
    sha256: str
    rows: int | None = None
    answers: int | None = None
    rejected: int | None = None
    unanswered: int | None = None
    subsets: dict[str, int] | None = None
    error: dict[str, Any] | None = None


class LedgerEntry(Answer):
    """A row of the upload that was not used; without a line, what is wrong with the file as a whole."""

    line: int | None
    code: str
    detail: str


class SampleMessage(Answer):
    """One turn of a prompt."""

    role: str
    content: str


class SampleResponse(Answer):
    """One response; ``reward`` is the file's score, if it had one."""

    text: str
    reward: float | None = None


class Sample(Answer):
    """A prompt and its responses, best first."""

    id: str
    subset: str
    prompt: list[SampleMessage]
    responses: list[SampleResponse]
    line: int


class JobStage(Answer):
    """A stage of a job's plan; ``reused`` when another job had already run or started it."""

    name: str
    run: str
    status: str
    fingerprint: str
    reused: bool
    started_at: datetime | None = None
    finished_at: datetime | None = None


class Progress(Answer):
    """How far the current stage is; ``eta_s`` in seconds."""

    stage: str | None = None
    step: int | None = None
    total: int | None = None
    eta_s: float | None = None


class JobError(Answer):
    """Why a job failed, and what to do."""

    code: str
    message: str
    hint: str = ""
    retryable: bool = False


class Job(Answer):
    """A job as the service sees it now."""

    id: str
    kind: str
    name: str
    status: Literal[
        "queued", "running", "pausing", "paused", "cancelling", "succeeded", "failed", "cancelled"
    ]
    spec: dict[str, Any]
    stage: str | None = None
    stages: list[JobStage] = []
    progress: Progress | None = None
    attempt: int = 0
    max_attempts: int = 0
    error: JobError | None = None
    result: dict[str, Any] | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    links: dict[str, str] = {}

    @property
    def ended(self) -> bool:
        """Whether the status will not change again."""
        return self.status in ("succeeded", "failed", "cancelled")


class StageEstimate(Answer):
    """A stage's cost; None where it cannot be known yet."""

    stage: str
    fingerprint: str
    reused: bool
    samples: int | None = None
    steps: int | None = None
    tokens: int | None = None
    memory_bytes: int | None = None
    seconds: float | None = None


class Estimate(Answer):
    """What a dry run says: the plan and its cost. Totals are without stages that are reused.

    ``memory_bytes`` is that of the stage that needs most; if ``complete`` is False, some stage's cost is not
    known and the totals are without it.
    """

    object: Literal["estimate"] = "estimate"
    kind: str
    spec: dict[str, Any]
    stages: list[StageEstimate]
    steps: int
    tokens: int
    memory_bytes: int | None
    seconds: float
    complete: bool
    assumptions: list[str]
    warnings: list[str]


class ArmJob(Answer):
    """A job of an arm; ``seed`` is None for a model that is evaluated as it is."""

    id: str
    seed: int | None = None
    status: str
    stage: str | None = None


class Arm(Answer):
    """A row of an experiment's table."""

    name: str
    baseline: str | None = None
    jobs: list[ArmJob] = []


class Experiment(Answer):
    """Arms x seeds as the service sees them now."""

    id: str
    name: str
    status: str
    seeds: list[int] = []
    baseline: str | None = None
    arms: list[Arm] = []
    cost: dict[str, Any] = {}
    spec: dict[str, Any] = {}
    warnings: list[str] = []
    created_at: datetime
    finished_at: datetime | None = None
    links: dict[str, str] = {}

    @property
    def ended(self) -> bool:
        """Whether none of its jobs will go on."""
        return self.status in ("succeeded", "failed", "cancelled")


class Event(Answer):
    """Something that happened in a job; ``seq`` counts 1, 2, ... without gaps."""

    seq: int
    type: str
    time: datetime | None = None
    data: dict[str, Any] = {}


class Series(Answer):
    """A metric: ``points`` are (step, value, time); NaN and infinities are the strings of those names."""

    name: str
    points: list[tuple[int, float | str | None, str]]
    n: int


class Artifact(Answer):
    """A file that a job made."""

    name: str
    sha256: str
    size: int
    media_type: str | None = None


class Key(Answer):
    """An API key; ``key`` is there once, in the answer that created it."""

    id: str
    name: str
    role: str
    key: str | None = None
