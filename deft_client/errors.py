"""What a call can raise, one tree.

::

    DeftClientError
    |-- ConnectionFailed      the service could not be reached, after all retries
    |-- APIError              the service refused; carries its problem (status, code, errors)
    |   |-- AuthenticationError   401
    |   |-- PermissionDenied      403
    |   |-- NotFound              404
    |   |-- Conflict              409
    |   `-- Invalid               400, 413, 415, 422: something in the request is wrong
    |-- DownloadCorrupted     the bytes do not have the announced SHA-256
    |-- JobFailed             ``jobs.wait`` saw the job fail or be cancelled
    `-- WaitTimeout           ``jobs.wait`` ran out of its time
"""

from __future__ import annotations

from typing import Any

from deft_client.models import FieldError, Job


class DeftClientError(Exception):
    """Base of everything that this client raises on purpose."""


class ConnectionFailed(DeftClientError):
    """No answer from the service."""


class APIError(DeftClientError):
    """A ``application/problem+json`` answer."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.code: str = str(problem.get("code", ""))
        self.title: str = str(problem.get("title", ""))
        self.detail: str = str(problem.get("detail", ""))
        self.request_id: str | None = problem.get("request_id")
        self.errors = [FieldError.model_validate(entry) for entry in problem.get("errors") or []]
        places = "".join(f"\n  {error}" for error in self.errors)
        super().__init__(f"{status} {self.code}: {self.detail or self.title}{places}")


class AuthenticationError(APIError):
    """The key is missing, wrong, expired or revoked."""


class PermissionDenied(APIError):
    """The key's role does not allow this."""


class NotFound(APIError):
    """There is no such thing, or this key may not see it."""


class Conflict(APIError):
    """The thing's state does not allow this; the detail lists what it allows."""


class Invalid(APIError):
    """The request is wrong; ``errors`` names the places."""


class DownloadCorrupted(DeftClientError):
    """What arrived is not what the service announced; the file was removed."""


class JobFailed(DeftClientError):
    """A job ended without success; ``job`` is its last state."""

    def __init__(self, job: Job) -> None:
        self.job = job
        error = job.error
        reason = f"{error.message} {error.hint}".strip() if error else job.status
        super().__init__(f"{job.id} {job.status}: {reason}")


class WaitTimeout(DeftClientError):
    """The job was still under way when the time was over."""


_BY_STATUS: dict[int, type[APIError]] = {
    400: Invalid,
    401: AuthenticationError,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    413: Invalid,
    415: Invalid,
    422: Invalid,
}


def error_for(status: int, problem: dict[str, Any]) -> APIError:
    """The exception for an answer of ``status``."""
    return _BY_STATUS.get(status, APIError)(status, problem)
