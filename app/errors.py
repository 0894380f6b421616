"""Every error answer is ``application/problem+json`` (RFC 9457) and says what was found and what to do.

A person who opens a page gets the same as a page.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path

from app.cookies import SESSION_COOKIE
from app.web.render import render
from deft_engine.errors import DataError, DeftError, DiskFull, ModelError, ResourceError, SpecError
from deft_engine.faults import fault_detail, faults

log = structlog.get_logger()

PROBLEM_MEDIA_TYPE = "application/problem+json"

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_DATABASE_DISK_FULL = "53100"  # SQLSTATE


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    pointer: str = Field(examples=["/deft/a"])
    """JSON pointer into the body, or the name of a query parameter or header."""
    code: str
    detail: str
    line: int | None = None
    """Line of an uploaded file or of a JSON body; null where there is none."""


class Problem(Exception):
    """An answer other than the one hoped for; raise it anywhere in a request.

    Args:
        status: HTTP status.
        code: stable and machine-readable, e.g. ``dataset_in_use``.
        title: the kind of problem in a few words.
        detail: what was found here, and what to do.
        errors: the single faults of a request's fields.
        headers: further headers of the answer.
        extra: further members of the answer, e.g. ``{"allowed": ["cancel"]}``.
    """

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    def response(self, request_id: str) -> JSONResponse:
        """The answer."""
        body = {
            "type": f"urn:deft:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
            **({"errors": [error.model_dump() for error in self.errors]} if self.errors else {}),
            **self.extra,
        }
        return JSONResponse(body, self.status, self.headers, media_type=PROBLEM_MEDIA_TYPE)


def not_found(what: str, name: str) -> Problem:
    """404 for an id or name that does not exist (or that the caller may not know of)."""
    return Problem(
        404, "not_found", "Not found", f"there is no {what} {name!r}; list them to see which there are"
    )


def invalid_request(errors: Sequence[FieldError]) -> Problem:
    """422 for a request whose fields are wrong."""
    detail = "; ".join(f"{error.pointer or 'the body'}: {error.detail}" for error in errors[:3])
    if len(errors) > 3:
        detail += f"; and {len(errors) - 3} more"
    return Problem(422, "invalid_request", "The request is not valid", detail, errors=errors)


def problem_of(error: DeftError) -> Problem:
    """The answer to an error of the engine's tree."""
    detail = str(error)
    if isinstance(error, SpecError | ModelError | DataError):
        pointer = error.pointer if isinstance(error, SpecError) else ""
        field = FieldError(pointer=pointer, code=error.error_code, detail=detail)
        return Problem(422, error.error_code, "The request cannot be carried out", detail, errors=[field])
    if isinstance(error, ResourceError):
        return Problem(507, error.error_code, "The server ran out of something", detail)
    return _unexpected()


def request_id_of(request: Request) -> str:
    """The request's id, as in its log lines and the header ``X-Request-Id``."""
    return str(request.scope.get("deft.request_id", ""))


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error as a problem; exceptions that nobody expected are :func:`unexpected_response`'s."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(DeftError, _on_deft_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(OperationalError, _on_database_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(OSError, _on_os_error)


def unexpected_response(request: Request) -> Response:
    """500: says nothing of the inside; the log has the traceback under the request's id."""
    return _answer(request, _unexpected())


def _answer(request: Request, problem: Problem) -> Response:
    request_id = request_id_of(request)
    if not _opens_a_page(request):
        return problem.response(request_id)
    page = render(
        "problem.html",
        status=problem.status,
        problem=problem,
        request_id=request_id,
        logged_in=SESSION_COOKIE in request.cookies,  # asked without a database, which may be what is away
    )
    page.headers.update(problem.headers)
    return page


def _opens_a_page(request: Request) -> bool:
    """Whether a browser asks for one of the pages, or for an address where there is nothing."""
    route = request.scope.get("route")
    is_api = route is not None and route.include_in_schema
    return not is_api and "text/html" in request.headers.get("accept", "")


def _unexpected() -> Problem:
    return Problem(
        500,
        "internal_error",
        "Something went wrong in the service",
        "this is a defect; report it with the request_id, under which the service's log has the details",
    )


def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return _answer(request, error)


def _on_deft_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DeftError)
    return _answer(request, problem_of(error))


_HTTP_ERRORS = {
    400: ("bad_request", "send a well-formed request; see /openapi.json"),
    404: ("not_found", "there is nothing at this address; see /openapi.json for what there is"),
    405: ("method_not_allowed", "this address takes other methods; see the header Allow"),
    413: ("too_large", "the body is larger than this address takes"),
}


def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    code, advice = _HTTP_ERRORS.get(error.status_code, (phrase.lower().replace(" ", "_"), ""))
    detail = advice if error.detail in {phrase, ""} or not advice else f"{error.detail}: {advice}"
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_allowed_methods(request, headers.get("Allow", ""))))
    problem = Problem(error.status_code, code, phrase, detail or error.detail, headers=headers)
    return _answer(request, problem)


def _allowed_methods(request: Request, of_one_route: str) -> set[str]:
    """Every method of an address; Starlette names those of the first route that has it."""
    paths = request.app.openapi()["paths"]
    here = [methods for template, methods in paths.items() if _fits(template, request.url.path)]
    return {method.upper() for methods in here for method in methods} | set(of_one_route.split(", "))


def _fits(template: str, path: str) -> bool:
    return compile_path(template)[0].match(path) is not None


def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if found and found[0]["type"] == "json_invalid":
        return _answer(request, _malformed_json(found[0], error.body))
    if isinstance(error.body, bytes):
        detail = "send it as JSON, with the header Content-Type: application/json"
        wrong = [FieldError(pointer="", code="content_type", detail=detail)]
    else:
        wrong = _field_errors(found, error.body)
    return _answer(request, invalid_request(wrong))


def _field_errors(found: Sequence[Mapping[str, Any]], body: Any) -> list[FieldError]:
    """Those of parameters and headers by their names, then those of the body by its pointers."""
    named = [
        FieldError(pointer="/".join(map(str, e["loc"][1:])), code=str(e["type"]), detail=fault_detail(e))
        for e in found
        if e["loc"][0] != "body"
    ]
    in_body = faults([{**e, "loc": e["loc"][1:]} for e in found if e["loc"][0] == "body"], body)
    return named + [FieldError(pointer=f.pointer, code=f.code, detail=f.detail) for f in in_body]


def _malformed_json(found: Mapping[str, Any], body: Any) -> Problem:
    position = int(found["loc"][-1])
    line = str(body).count("\n", 0, position) + 1
    detail = f"the body is not JSON: line {line}, character {position}: {found['ctx']['error']}"
    field = FieldError(pointer="", code="malformed_json", detail=detail, line=line)
    return Problem(400, "malformed_json", "The body is not JSON", detail, errors=[field])


def _on_database_error(request: Request, error: Exception) -> Response:
    if getattr(getattr(error, "orig", None), "sqlstate", None) == _DATABASE_DISK_FULL:
        return _disk_full(request, "the disk of the database is full")
    log.error("database_unavailable", error=str(error))
    problem = Problem(
        503,
        "database_unavailable",
        "The database does not answer",
        "nothing was changed; try again in a few seconds",
        headers={"Retry-After": "5"},
    )
    return _answer(request, problem)


def _on_os_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, OSError) or error.errno not in _DISK_FULL:
        raise error
    return _disk_full(request, f"the server's disk is full or read-only: {error.strerror}")


def _disk_full(request: Request, found: str) -> Response:
    hint = "free some space in DEFT's home and send the request again; what is stored is unharmed"
    return _answer(request, problem_of(DiskFull(found, hint=hint)))


def _on_disconnect(request: Request, error: Exception) -> Response:
    """Nobody is left to read an answer; 499 is for the log."""
    return Response(status_code=499)
