"""Every error that DEFT raises on purpose, one tree.

::

    DeftError
    |-- SpecError             the request itself is wrong                  (never retried)
    |-- DataError             the data is wrong, with its place            (never retried)
    |   |-- FormatError       no reader fits, or a file cannot be decoded
    |   `-- NothingUsable     every row was read, and none can be used
    |-- ModelError            a model or tokenizer cannot be used          (never retried)
    |-- ResourceError         memory or disk ran out                       (never retried)
    |   |-- DiskFull
    |   `-- OutOfMemory
    |-- TrainingDiverged      NaN or infinity, with its step               (never retried)
    |-- CheckpointMismatch    a checkpoint of another run or world size    (never retried)
    |-- EndpointError         an endpoint refused, or cannot be asked      (never retried)
    |   |-- EndpointUnavailable  it did not answer, however often asked    (retried)
    |   `-- BudgetExhausted   the next request may not be paid for         (never retried)
    |-- Interrupted           asked to stop (cancel, pause)                (not a failure)
    `-- StageCrashed          the process died without a word              (retried)

``code`` is stable and machine-readable, ``message`` says what was found and where, ``hint`` what to do.
"""

from __future__ import annotations

from typing import Any, ClassVar


class DeftError(Exception):
    """Base of the tree; carries what an API answer, a job row and a terminal need."""

    code: ClassVar[str] = "deft_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self._code = code

    @property
    def error_code(self) -> str:
        """The instance's code: the class's, unless a more exact one was given."""
        return self._code or type(self).code

    def as_dict(self) -> dict[str, Any]:
        """The ``error`` object of a job: ``code, message, hint, retryable``."""
        return {
            "code": self.error_code,
            "message": self.message,
            "hint": self.hint,
            "retryable": type(self).retryable,
        }

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class SpecError(DeftError):
    """The request cannot be carried out as written."""

    code = "invalid_spec"

    def __init__(self, message: str, *, hint: str = "", code: str | None = None, pointer: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.pointer = pointer  # JSON pointer into the spec, e.g. "/deft/grader/model"


class DataError(DeftError):
    """The data cannot be used; the message starts with the place (``line 41: ...``)."""

    code = "invalid_data"


class FormatError(DataError):
    """No reader recognises the file, or it cannot be decoded at all."""

    code = "invalid_format"


class NothingUsable(DataError):
    """Every row of an upload was read, and none can be used; ``ledger.jsonl`` is whole and says why.

    Args:
        summary: what the import would have answered: ``rows``, ``rejected`` and so on.
    """

    def __init__(self, message: str, *, hint: str, code: str, summary: dict[str, Any]) -> None:
        super().__init__(message, hint=hint, code=code)
        self.summary = summary

    def as_dict(self) -> dict[str, Any]:
        """The ``error`` object, and the summary."""
        return {**super().as_dict(), "summary": self.summary}


class ModelError(DeftError):
    """A model or tokenizer is missing, unsafe, outside the allowed roots or of an unsupported kind."""

    code = "invalid_model"


class ResourceError(DeftError):
    """The machine ran out of something."""

    code = "resource_exhausted"


class DiskFull(ResourceError):
    """No space left, or the folder is read-only."""

    code = "disk_full"


class OutOfMemory(ResourceError):
    """The device or the host has no memory left."""

    code = "out_of_memory"


class TrainingDiverged(DeftError):
    """The loss or a gradient is NaN or infinite; the message names the step."""

    code = "training_diverged"


class CheckpointMismatch(DeftError):
    """A checkpoint was written by another engine, world size or spec."""

    code = "checkpoint_mismatch"


class EndpointError(DeftError):
    """A chat endpoint refused a request, answered what is no answer, or may not be asked at all."""

    code = "endpoint_error"


class EndpointUnavailable(EndpointError):
    """A chat endpoint is away, overloaded or broke off, and was asked again in vain."""

    code = "endpoint_unavailable"
    retryable = True

    def __init__(
        self, message: str, *, hint: str = "", code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.retry_after = retry_after  # seconds that the server asked to wait


class BudgetExhausted(EndpointError):
    """The token budget has no room for the next request's worst case."""

    code = "budget_exhausted"


class Interrupted(DeftError):
    """The stage was asked to stop; work so far is kept in its checkpoint."""

    code = "interrupted"


class StageCrashed(DeftError):
    """The stage's process ended without saying why (killed, segmentation fault)."""

    code = "stage_crashed"
    retryable = True
