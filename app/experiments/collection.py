"""From an experiment's jobs to what its table is computed from: per-sample scores out of the store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Artifact, Experiment, ExperimentJob, StageInput, StageRun, StageStatus
from app.store import get_store
from deft_engine.canonical import canonical_json, sha256_hex
from deft_engine.experiments.results import TOTAL, ArmFigures, ArmRuns, Evaluated, arm_figures
from deft_engine.experiments.spec import ExperimentSpec
from deft_engine.sample_scores import read_sample_scores

SCORES = "sample_scores.parquet"
_KEPT_TABLES = 32
_VERSIONED = ("deft", "torch", "transformers", "sacrebleu")


@dataclass(frozen=True, slots=True)
class EvaluatedJob:
    """A job of an arm that is evaluated: where its scores are, and how they were computed."""

    seed: int | None
    job_id: str
    scores_sha256: str
    signatures: Mapping[str, str]
    figures: Mapping[str, Mapping[str, float | None]]
    """Subset or ``Total`` -> figure -> value."""


@dataclass(frozen=True, slots=True)
class CollectedArm:
    """An arm and those of its jobs that are evaluated."""

    name: str
    baseline: str | None
    jobs: tuple[EvaluatedJob, ...]


def collect(session: Session, experiment: Experiment) -> list[CollectedArm]:
    """What there is to compare so far; ``experiment``'s jobs and stages are loaded."""
    spec = ExperimentSpec.of_resolved(experiment.spec)
    done = {place.job_id: runs for place in experiment.jobs if (runs := _evaluated(place)) is not None}
    digests = _digests(session, [evaluate.id for _, evaluate in done.values()])
    contexts = _Contexts(session, [run.id for runs in done.values() for run in runs])
    found: list[list[EvaluatedJob]] = [[] for _ in spec.arms]
    for place in experiment.jobs:
        if place.job_id in done:
            generate, evaluate = done[place.job_id]
            found[place.arm].append(_job(place, generate, evaluate, digests[evaluate.id], contexts))
    return [
        CollectedArm(arm.name, spec.baseline_of(arm), tuple(jobs))
        for arm, jobs in zip(spec.arms, found, strict=True)
    ]


def _job(
    place: ExperimentJob, generate: StageRun, evaluate: StageRun, digest: str, contexts: _Contexts
) -> EvaluatedJob:
    result = evaluate.result or {}
    groups = {**result["subsets"], TOTAL: result["total"]}
    return EvaluatedJob(
        seed=place.seed,
        job_id=place.job_id,
        scores_sha256=digest,
        signatures={
            name: f"{score['signature']}|{contexts.of(generate, evaluate, name)}"
            for name, score in result["total"].items()
        },
        figures={
            group: {name: score["value"] for name, score in figures.items()}
            for group, figures in groups.items()
        },
    )


def table_of(collected: Sequence[CollectedArm]) -> list[ArmFigures]:
    """The figures; of the same artifacts they are computed once."""
    key = sha256_hex(canonical_json([asdict(arm) for arm in collected]))
    return _tables.get(key) or _tables.put(key, arm_figures([_read(arm) for arm in collected]))


def _read(arm: CollectedArm) -> ArmRuns:
    runs = {
        job.seed: Evaluated(
            read_sample_scores(get_store().get(job.scores_sha256)), job.signatures, job.figures
        )
        for job in arm.jobs
    }
    return ArmRuns(arm.name, arm.baseline, runs)


def _evaluated(place: ExperimentJob) -> tuple[StageRun, StageRun] | None:
    """The stages that generated and evaluated a job's answers, once both are done."""
    runs = {stage.stage_run.stage: stage.stage_run for stage in place.job.stages}
    generate, evaluate = runs["generate"], runs["evaluate"]
    return (generate, evaluate) if evaluate.status is StageStatus.SUCCEEDED else None


def _digests(session: Session, run_ids: Iterable[str]) -> dict[str, str]:
    """Stage run -> SHA-256 of its per-sample scores."""
    query = select(Artifact.stage_run_id, Artifact.sha256).where(
        Artifact.stage_run_id.in_(list(run_ids)), Artifact.name == SCORES
    )
    return {run_id: sha256 for run_id, sha256 in session.execute(query) if run_id is not None}


class _Contexts:
    """What a figure's signature says beside its formula: data, r_eval, decoding, versions."""

    def __init__(self, session: Session, run_ids: Sequence[str]) -> None:
        rows = session.scalars(select(StageInput).where(StageInput.stage_run_id.in_(run_ids)))
        self._inputs = {(row.stage_run_id, row.name): row.identity for row in rows}

    def of(self, generate: StageRun, evaluate: StageRun, figure: str) -> str:
        parts = [f"data:{self._short(generate, 'samples')}"]
        if figure == "divergence":
            parts.append(f"reference:{self._short(evaluate, 'reference_model')}")
        if (evaluate.id, "reward_model") in self._inputs:
            parts.append(f"r_eval:{self._short(evaluate, 'reward_model')}")
        decoding = sorted(generate.spec.items())
        parts.append("greedy:" + ",".join(f"{name}={_shown(value)}" for name, value in decoding))
        return "|".join([*parts, *_versions(evaluate.manifest or {})])

    def _short(self, run: StageRun, name: str) -> str:
        return sha256_hex(self._inputs[run.id, name].encode())[:8]


def _shown(value: Any) -> str:
    return "all" if value is None else str(value)


def _versions(manifest: Mapping[str, Any]) -> list[str]:
    versions = manifest.get("versions", {})
    return [f"{name}:{versions[name]}" for name in _VERSIONED if name in versions]


class _Kept:
    """Tables by what they are made of, the least recently used dropped first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tables: OrderedDict[str, list[ArmFigures]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> list[ArmFigures] | None:
        with self._lock:
            table = self._tables.get(key)
            if table is not None:
                self._tables.move_to_end(key)
            return table

    def put(self, key: str, table: list[ArmFigures]) -> list[ArmFigures]:
        with self._lock:
            self._tables[key] = table
            while len(self._tables) > self._most:
                self._tables.popitem(last=False)
        return table


_tables = _Kept(_KEPT_TABLES)
