"""The tables. A row of ``stage_runs`` is the truth about a stage; a broker's message only rings its bell."""

from app.db.models.access import ApiKey, AuditEntry, IdempotencyKey, Role, WebSession
from app.db.models.base import Base, Json
from app.db.models.experiments import Experiment, ExperimentJob
from app.db.models.jobs import (
    LIVE_STAGES,
    TERMINAL_JOBS,
    Artifact,
    Attempt,
    AttemptStatus,
    Dataset,
    DatasetStatus,
    Event,
    Job,
    JobDataset,
    JobStage,
    JobStatus,
    Metric,
    StageInput,
    StageRun,
    StageStatus,
)
from app.db.models.studies import Annotator, Assignment, Choice, Skip, Study, StudyItem, Vote

__all__ = [
    "LIVE_STAGES",
    "TERMINAL_JOBS",
    "Annotator",
    "ApiKey",
    "Artifact",
    "Assignment",
    "Attempt",
    "AttemptStatus",
    "AuditEntry",
    "Base",
    "Choice",
    "Dataset",
    "DatasetStatus",
    "Event",
    "Experiment",
    "ExperimentJob",
    "IdempotencyKey",
    "Job",
    "JobDataset",
    "JobStage",
    "JobStatus",
    "Json",
    "Metric",
    "Role",
    "Skip",
    "StageInput",
    "StageRun",
    "StageStatus",
    "Study",
    "StudyItem",
    "Vote",
    "WebSession",
]
