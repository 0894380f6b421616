from typing import Any

import pytest
from pydantic import ValidationError

from deft_engine.endpoints.hosts import AllowedHosts
from deft_engine.endpoints.spec import EndpointSpec
from deft_engine.errors import SpecError
from deft_engine.faults import faults
from deft_engine.model_names import resolve_endpoint
from deft_engine.plan import External
from deft_engine.planning import plan_job
from deft_engine.specs import EvaluateJob, job_spec_adapter
from deft_engine.stages import Queue
from tests.unit.plans import Names

ENDPOINT = {"url": "https://api.example.com/v1", "model": "m"}


class Resolver(Names):
    def endpoint(self, spec: EndpointSpec, pointer: str) -> External:
        self.pointers.append(pointer)
        return resolve_endpoint(spec, pointer, AllowedHosts.parse("api.example.com"))


def evaluate(**endpoint: Any) -> Any:
    given = {"kind": "evaluate", "eval_dataset": "d", "model": {"endpoint": {**ENDPOINT, **endpoint}}}
    return job_spec_adapter.validate_python(given)


@pytest.mark.parametrize(
    "url",
    ["ftp://a.test/v1", "http://", "http:///v1", "https://user:password@a.test/v1", "https://a.test/v1?key=1",
     "https://a.test/v1#x", "http://a.test:99999/", "http://[::1/", "https://a.test/ v1", "a.test/v1"],
)  # fmt: skip
def test_addresses_that_are_none_or_carry_secrets_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        EndpointSpec(url=url, model="m")


@pytest.mark.parametrize("name", ["HOME", "DEFT_DATABASE_URL", "DEFT_ENDPOINT_HOSTS", "DEFT_ENDPOINT_KEY_",
                                  "deft_endpoint_key_a", "DEFT_ENDPOINT_KEY_A\n", "sk-abc"])  # fmt: skip
def test_only_variables_meant_for_keys_can_be_named(name: str) -> None:
    with pytest.raises(ValidationError):
        EndpointSpec(url="https://a.test", model="m", api_key_env=name)


def test_an_address_is_known_by_its_base() -> None:
    for url in ("https://a.test/v1", "https://a.test/v1/", "https://a.test/v1/chat/completions"):
        spec = EndpointSpec(url=url, model="m")
        assert spec.completions_url == "https://a.test/v1/chat/completions"
        assert EndpointSpec.from_uri(spec.uri) == spec


def test_only_address_and_model_make_another_result() -> None:
    def generate(**changes: Any) -> str:
        plan = plan_job(evaluate(**changes), Resolver())
        stage = next(stage for stage in plan.stages if stage.stage == "generate")
        assert stage.queue is Queue.CPU  # no model is loaded
        return stage.fingerprint

    same = {"concurrency": 1, "token_budget": 5, "api_key_env": "DEFT_ENDPOINT_KEY_A", "timeout": 9}
    assert generate() == generate(**same)
    assert generate() != generate(model="other")
    assert generate() != generate(url="https://api.example.com/v2")


def test_a_host_that_is_not_allowed_is_told_at_its_place() -> None:
    with pytest.raises(SpecError) as caught:
        plan_job(evaluate(url="http://169.254.169.254/latest"), Resolver())
    assert (caught.value.pointer, caught.value.error_code) == ("/model/endpoint/url", "endpoint_not_allowed")
    assert "DEFT_ENDPOINT_HOSTS" in caught.value.hint


@pytest.mark.parametrize(
    ("model", "pointer"),
    [
        ({"endpoint": {"model": "m"}}, "/model/endpoint/url"),
        ({"endpoint": {**ENDPOINT, "api_key": "sk-1"}}, "/model/endpoint/api_key"),
        ({"endpoint": ENDPOINT, "base": "tiny"}, "/model/base"),
        ({"base": "tiny", "bsae": 1}, "/model/bsae"),
        ({}, "/model/base"),
        ("tiny", "/model"),
    ],
)
def test_wrong_models_are_told_at_their_place(model: Any, pointer: str) -> None:
    given = {"kind": "evaluate", "eval_dataset": "d", "model": model}
    with pytest.raises(ValidationError) as caught:
        job_spec_adapter.validate_python(given)
    assert [fault.pointer for fault in faults(caught.value.errors(), given)] == [pointer]


def test_a_spec_never_holds_a_key() -> None:
    job = evaluate(api_key_env="DEFT_ENDPOINT_KEY_A")
    assert isinstance(job, EvaluateJob)
    assert job.model_dump(mode="json")["model"]["endpoint"]["api_key_env"] == "DEFT_ENDPOINT_KEY_A"
