"""The OpenAPI document is complete, and the service does what it says, whatever is sent."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import checks

from tests.api_world import Api

OPEN = {"/healthz", "/readyz", "/metrics"}
EXAMPLES = 12

CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_error_is_declared_as_a_problem(api: Api) -> None:
    for path, method, operation in operations(api.http.get("/openapi.json").json()):
        if path == "/healthz":
            continue
        for status in ("400", "401", "403", "404", "422", "500", "503"):
            content = operation["responses"][status]["content"]
            assert set(content) == {"application/problem+json"}, (method, path, status)


def test_operations_have_stable_names_and_texts(api: Api) -> None:
    found = operations(api.http.get("/openapi.json").json())
    names = [operation["operationId"] for _, _, operation in found]
    assert len(names) == len(set(names))
    for path, _, operation in found:
        assert "__" not in operation["operationId"], path  # not made up from the address
        assert operation.get("description"), path
        if path not in OPEN and "assignments" not in path:
            assert operation["security"], path


def test_the_service_does_what_its_document_says(api: Api, known: dict[str, str]) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", api.http.app)
    found = [result.ok() for result in schema.get_all_operations()]
    for operation in sorted(found, key=lambda operation: operation.method == "delete"):
        _probe(operation, api, known)


def _probe(operation: Any, api: Api, known: dict[str, str]) -> None:
    """Random requests, valid and not; half of them about things that exist."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(*_cases(operation)), exists=st.booleans(), admin=st.booleans())
    def probe(case: Any, exists: bool, admin: bool) -> None:
        if exists and case.path_parameters:
            for name, value in known.items():
                if name in case.path_parameters:
                    case.path_parameters[name] = value
        if exists and operation.label in ("POST /jobs", "POST /experiments") and isinstance(case.body, dict):
            names = {"dataset": known["dataset_id"], "eval_dataset": known["dataset_id"]}
            case.body |= {name: names[name] for name in names if name in case.body}
            base = case.body.setdefault("base", {}) if operation.label == "POST /experiments" else case.body
            if isinstance(base, dict):
                base["model"] = {"base": "tiny"}
        headers = api.admin if admin else api.researcher
        case.call_and_validate(headers=headers, checks=CHECKS)

    probe()


def _cases(operation: Any) -> list[Any]:
    modes = schemathesis.GenerationMode
    return [operation.as_strategy(generation_mode=mode) for mode in (modes.POSITIVE, modes.NEGATIVE)]
