"""A job's plan with names that stand for contents."""

from typing import Any

from deft_engine.endpoints.spec import EndpointSpec
from deft_engine.plan import DatasetRef, External, Made, Plan
from deft_engine.planning import plan_job
from deft_engine.specs import job_spec_adapter
from deft_engine.stages import ImportSpec

ALIGN: dict[str, Any] = {
    "kind": "align",
    "dataset": "train",
    "eval_dataset": "test",
    "model": {"base": "base"},
    "method": {"name": "dpo"},
    "deft": {"grader": {"name": "reward_model", "model": "judge"}},
    "evaluation": {"reward_model": "other-judge"},
}


class Names:
    """A resolver whose names stand for contents."""

    def __init__(self, **contents: str) -> None:
        self.contents = contents
        self.pointers: list[str] = []

    def _external(self, name: str, pointer: str) -> External:
        self.pointers.append(pointer)
        return External(f"path:/{name}", self.contents.get(name, f"digest of {name}"))

    def dataset(self, name: str, pointer: str) -> DatasetRef:
        return DatasetRef(self._external(name, pointer), ImportSpec())

    def model(self, name: str, revision: str | None, pointer: str) -> External:
        return self._external(name, pointer)

    def generations(self, name: str, samples: Made, pointer: str) -> External:
        return self._external(name, pointer)

    def endpoint(self, spec: EndpointSpec, pointer: str) -> External:
        return External(spec.uri, spec.identity)


def plan_of(names: Names | None = None, **changes: Any) -> Plan:
    return plan_job(job_spec_adapter.validate_python(ALIGN | changes), names or Names())


def by_stage(plan: Plan) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for stage in plan.stages:
        found.setdefault(stage.stage, []).append(stage.fingerprint)
    return found
