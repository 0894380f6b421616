"""From a job's spec to its stages: what runs, from what, and under which fingerprint.

A fingerprint is the hash of a stage's name, version, spec and the identity of its inputs. The identity of an
input that another stage makes is that stage's fingerprint (as in Nix), so the whole plan is known before
anything has run, and equal work is recognised across jobs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from deft_engine.base import Spec
from deft_engine.canonical import canonical_json, sha256_hex
from deft_engine.endpoints.spec import EndpointSpec
from deft_engine.stages import (
    STAGES,
    DividedSpec,
    ImportGenerationsSpec,
    ImportSpec,
    Queue,
)

_MODEL_INPUTS = {"model", "reward_model"}


@dataclass(frozen=True, slots=True)
class External:
    """An input from outside.

    ``upload:<sha256>``, ``builtin:tiny``, ``path:/abs``, ``hub:id@rev`` or ``endpoint:<its spec>``.
    """

    uri: str
    digest: str  # identity of the content

    @property
    def identity(self) -> str:
        """What a fingerprint sees of it."""
        return self.digest


@dataclass(frozen=True, slots=True)
class Made:
    """An input that a stage makes: output ``output`` of the stage run with this fingerprint."""

    fingerprint: str
    output: str

    @property
    def identity(self) -> str:
        """What a fingerprint sees of it."""
        return f"{self.fingerprint}/{self.output}"


Source = External | Made


@dataclass(frozen=True, slots=True)
class DatasetRef:
    """An uploaded file and how it is to be read."""

    upload: External
    spec: ImportSpec


class Resolver(Protocol):
    """Turns the names in a spec into sources; the service and the command line each have one.

    Every method raises ``SpecError`` with ``pointer`` where a name cannot be resolved, or may not be used.
    """

    def dataset(self, name: str, pointer: str) -> DatasetRef: ...

    def model(self, name: str, revision: str | None, pointer: str) -> Source: ...

    def endpoint(self, spec: EndpointSpec, pointer: str) -> External: ...

    def file(self, name: str, pointer: str) -> External: ...

    def generations(self, name: str, samples: Made, pointer: str) -> External:
        """An upload of answers to ``samples``."""
        ...


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage with its spec (JSON form), its inputs and its fingerprint."""

    stage: str
    spec: dict[str, Any]
    inputs: dict[str, Source]
    fingerprint: str

    @property
    def queue(self) -> Queue:
        """The stage's queue; work without a model never waits for a device."""
        return STAGES[self.stage].queue if _MODEL_INPUTS & self.inputs.keys() else Queue.CPU


@dataclass(slots=True)
class Plan:
    """Stages in an order in which they can run, each fingerprint once."""

    stages: list[PlannedStage] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    processes: int = 1
    """Among which a stage that runs a model on each sample alone shares out the samples."""

    def add(self, stage: str, spec: Spec, inputs: dict[str, Source]) -> PlannedStage:
        """Append a stage, unless one with the same fingerprint is there already."""
        if isinstance(spec, DividedSpec) and _MODEL_INPUTS & inputs.keys():
            spec = spec.model_copy(update={"processes": self.processes})
        planned = plan_stage(stage, spec, inputs)
        for known in self.stages:
            if known.fingerprint == planned.fingerprint:
                return known
        self.stages.append(planned)
        return planned


def plan_stage(stage: str, spec: Spec, inputs: dict[str, Source]) -> PlannedStage:
    """One stage and its fingerprint.

    Raises:
        ValueError: the inputs are not those of the stage table (a bug in a plan).
    """
    row = STAGES[stage]
    if not set(row.inputs) <= inputs.keys() <= {*row.inputs, *row.optional_inputs}:
        raise ValueError(
            f"stage {stage} takes {row.inputs}, optionally {row.optional_inputs}; got {sorted(inputs)}"
        )
    content = spec.model_dump(mode="json")
    shared_out = {"processes"} if isinstance(spec, DividedSpec) else set()
    identity = {
        "stage": stage,
        "version": row.version,
        "spec": {name: value for name, value in content.items() if name not in shared_out},
        "inputs": {name: source.identity for name, source in inputs.items()},
    }
    return PlannedStage(stage, content, inputs, sha256_hex(canonical_json(identity)))


def plan_generations(upload: External, samples: Made) -> PlannedStage:
    """The ``import_generations`` stage of an upload of answers to ``samples``."""
    return plan_stage("import_generations", ImportGenerationsSpec(), {"upload": upload, "samples": samples})


def plan_dataset(dataset: DatasetRef) -> PlannedStage:
    """The ``import`` stage of an upload."""
    return plan_stage("import", dataset.spec, {"upload": dataset.upload})
