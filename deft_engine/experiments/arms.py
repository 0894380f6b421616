"""From an experiment to its jobs: each arm's fields over the base's, once for each seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from deft_engine.errors import SpecError
from deft_engine.experiments.spec import MOST_JOBS, Arm, ExperimentSpec, JobFields
from deft_engine.faults import Fault, faults
from deft_engine.presets import load_preset, merge_fields, same_variant
from deft_engine.spec_sections import EvaluationSpec
from deft_engine.specs import AlignJob, EvaluateJob, RewardModelSpec, model_kind

_OBJECTS = tuple(name for name in JobFields.model_fields if name != "preset")
_OF_KIND: dict[str, type[AlignJob | EvaluateJob]] = {"align": AlignJob, "evaluate": EvaluateJob}


class InvalidExperiment(SpecError):
    """Arms that cannot be run, or not be compared; ``faults`` lists every fault with its place."""

    def __init__(self, found: list[Fault]) -> None:
        super().__init__(
            "; ".join(f"{fault.pointer}: {fault.detail}" for fault in found), pointer=found[0].pointer
        )
        self.faults = found


@dataclass(frozen=True, slots=True)
class ArmJob:
    """A job of an arm; ``seed`` is None for an arm that is evaluated as it is."""

    arm: int
    seed: int | None
    spec: AlignJob | EvaluateJob


def jobs_of(spec: ExperimentSpec) -> list[ArmJob]:
    """The jobs of an experiment, arm by arm.

    Raises:
        InvalidExperiment: names of arms do not fit, an arm's fields are not those of a job, there are too
            many jobs, or the arms are not evaluated alike.
    """
    _refuse(_name_faults(spec) + _count_faults(spec) + _null_evaluations(spec))
    found: list[Fault] = []
    made: list[ArmJob] = []
    for number, arm in enumerate(spec.arms):
        for seed in spec.seeds_of(arm):
            try:
                made.append(ArmJob(number, seed, arm_job(spec, arm, seed)))
            except InvalidExperiment as error:
                found += error.faults
                break  # the other seeds have the same faults
    _refuse(found)
    _refuse(_evaluation_faults(made))
    return made


def arm_job(spec: ExperimentSpec, arm: Arm, seed: int | None) -> AlignJob | EvaluateJob:
    """The job of an arm with a seed.

    Raises:
        InvalidExperiment: the fields are not those of a job.
    """
    place = f"/arms/{spec.arms.index(arm)}"
    own = arm.model_dump(mode="json", exclude_unset=True)
    base = spec.base.model_dump(mode="json", exclude_unset=True)
    for given, at in ((own, place), (base, "/base")):
        if "seed" in (given.get("training") or {}):
            raise InvalidExperiment([_fault(f"{at}/training/seed", "is set by seeds; leave it out")])
    preset = own.get("preset") or base.get("preset")
    if arm.kind == "evaluate":
        names: tuple[str, ...] = ("model", "evaluation", "resources")
        strange = [_fault(f"{place}/{n}", "an arm of kind evaluate has no such field") for n in own
                   if n in {*_OBJECTS, "preset", "dataset"} - {*names}]  # fmt: skip
        _refuse(strange)
        fields: dict[str, Any] = _laid({}, base, own, names)
    else:
        fields = _laid(load_preset(preset) if preset else {}, base, own, _OBJECTS)
        fields |= {"preset": preset, "dataset": arm.dataset or spec.dataset}
        fields["training"] = {**(fields.get("training") or {}), "seed": seed}
    name = f"{spec.name}: {arm.name}" + ("" if seed is None else f", seed {seed}")
    fields.setdefault("evaluation", {})
    fields |= {"name": name[:200], "eval_dataset": spec.eval_dataset, "kind": arm.kind}
    try:
        job = _OF_KIND[arm.kind].model_validate(fields)
    except ValidationError as error:
        found = faults(error.errors(), fields)
        placed = [fault._replace(pointer=place_of(fault.pointer, arm, spec)) for fault in found]
        raise InvalidExperiment(placed) from error
    if isinstance(job.model, RewardModelSpec):
        detail = "names a reward model, which answers nothing; evaluate it by a job of its own"
        raise InvalidExperiment([_fault(place_of("/model/reward_model", arm, spec), detail)])
    return job


def place_of(pointer: str, arm: Arm, spec: ExperimentSpec) -> str:
    """Where in an experiment the value at ``pointer`` of an arm's job was given, or is to be given."""
    first, *rest = pointer.lstrip("/").split("/")
    if first == "eval_dataset" or (first == "dataset" and arm.dataset is None):
        return f"/{first}"
    own = arm.model_dump(mode="json", exclude_unset=True)
    return (f"/arms/{spec.arms.index(arm)}" if _has(own, [first, *rest]) else "/base") + pointer


def _laid(
    preset: Mapping[str, Any], base: Mapping[str, Any], own: Mapping[str, Any], names: tuple[str, ...]
) -> dict[str, Any]:
    """Preset, base and arm, each over the one before.

    Where the preset and the arm say null or another variant than the base, what the arm is stays.
    """
    laid: dict[str, Any] = {}
    for name in names:
        above = merge_fields(*({name: given[name]} if name in given else {} for given in (preset, own)))
        if name in base and _fits(base[name], above, name):
            between = merge_fields({name: preset[name]} if name in preset else {}, {name: base[name]})
            above = merge_fields(between, {name: own[name]} if name in own else {})
        laid |= above
    return laid


def _fits(base: Any, above: Mapping[str, Any], name: str) -> bool:
    if name not in above:
        return True
    if not isinstance(base, dict) or not isinstance(above[name], dict):
        return False
    return same_variant(above[name], base) and (
        name != "model" or model_kind(above[name]) == model_kind(base)
    )


def _has(given: Any, path: list[str]) -> bool:
    """Whether a value, or the object that it is missing from, was given here."""
    for depth, part in enumerate(path):
        if not isinstance(given, Mapping) or part not in given:
            return depth == len(path) - 1 and depth > 0
        given = given[part]
    return True


def _name_faults(spec: ExperimentSpec) -> list[Fault]:
    names = [arm.name for arm in spec.arms]
    found = [
        _fault(
            f"/arms/{number}/name",
            f"arm {names.index(name)} has the name {name!r} already; name it otherwise",
        )
        for number, name in enumerate(names)
        if names.index(name) < number
    ]
    asked = [("/baseline", spec.baseline)]
    asked += [(f"/arms/{number}/baseline", arm.baseline) for number, arm in enumerate(spec.arms)]
    unknown = [(at, name) for at, name in asked if name is not None and name not in names]
    return found + [
        _fault(at, f"{name!r} is no arm; the arms are {', '.join(names)}", "unknown_baseline")
        for at, name in unknown
    ]


def _count_faults(spec: ExperimentSpec) -> list[Fault]:
    jobs = sum(len(spec.seeds_of(arm)) for arm in spec.arms)
    if jobs <= MOST_JOBS:
        return []
    detail = f"the experiment would have {jobs} jobs, more than {MOST_JOBS}; name fewer seeds or arms"
    return [_fault("/seeds", detail, "too_many_jobs")]


def _null_evaluations(spec: ExperimentSpec) -> list[Fault]:
    given = [("/base", spec.base), *((f"/arms/{number}", arm) for number, arm in enumerate(spec.arms))]
    return [
        _fault(f"{at}/evaluation", "is null, but an experiment compares evaluated models; leave it out")
        for at, fields in given
        if "evaluation" in fields.model_fields_set and fields.evaluation is None
    ]


def _evaluation_faults(made: list[ArmJob]) -> list[Fault]:
    """Figures are compared sample by sample, so all arms answer the same prompts under the same terms."""
    first = made[0].spec.evaluation
    found: dict[int, Fault] = {}
    for job in made:
        differing = [
            name
            for name in EvaluationSpec.model_fields
            if getattr(first, name) != getattr(job.spec.evaluation, name)
        ]
        if differing:
            detail = (
                f"differs from arm {made[0].arm}'s in {', '.join(differing)}; "
                "all arms must be evaluated alike: set it in base.evaluation"
            )
            found.setdefault(job.arm, _fault(f"/arms/{job.arm}/evaluation", detail, "evaluations_differ"))
    return list(found.values())


def _fault(pointer: str, detail: str, code: str = "value_error") -> Fault:
    return Fault(pointer, code, detail)


def _refuse(found: list[Fault]) -> None:
    if found:
        raise InvalidExperiment(found)
