"""The OpenAPI document: FastAPI's, with our errors in place of its own."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict

from app.errors import FieldError

_DESCRIPTION = """\
DEFT aligns language models with human preferences: data grading, distribution reward, blind human evaluation.

Errors are `application/problem+json` (RFC 9457) with `code`, `request_id` and, for validation, `errors`.
Lists are pages: `limit`, `after` (the last entry's id), `has_more`. Times are RFC 3339 in UTC.
Every POST that creates takes an `Idempotency-Key`.
"""


class ProblemBody(BaseModel):
    """RFC 9457."""

    model_config = ConfigDict(extra="allow", title="Problem")

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldError] = []


def describe(app: FastAPI) -> None:
    """Make ``app`` answer /openapi.json with the complete document."""

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=_DESCRIPTION, routes=app.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    problem = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas["Problem"] = problem
    return document
