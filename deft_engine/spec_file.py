"""A job's spec in a YAML or JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from deft_engine.errors import SpecError
from deft_engine.faults import Fault, faults
from deft_engine.specs import Job, job_spec_adapter


class InvalidSpec(SpecError):
    """The file's fields are not those of a job; ``faults`` lists every one that is wrong."""

    def __init__(self, path: Path, found: list[Fault]) -> None:
        lines = [
            f"  {fault.pointer.lstrip('/').replace('/', '.') or 'job'}: {fault.detail}" for fault in found
        ]
        super().__init__(
            "\n".join([f"{path} is not the spec of a job:", *lines]),
            hint="the examples folder has a spec of each kind",
            pointer=found[0].pointer,
        )
        self.faults = found

    def as_dict(self) -> dict[str, Any]:
        """The error and its ``errors``, as the service's problem documents have them."""
        return super().as_dict() | {"errors": [fault._asdict() for fault in self.faults]}


def read_job(path: Path) -> Job:
    """The job that a file describes.

    Raises:
        SpecError: the file cannot be read, or is not the spec of a job (``InvalidSpec``).
    """
    given = _parse(path)
    try:
        return job_spec_adapter.validate_python(given)
    except ValidationError as error:
        raise InvalidSpec(path, faults(error.errors(), given)) from error


def _parse(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        given = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise SpecError(
            f"{path} cannot be read: {error.strerror}", hint="name a YAML or JSON file"
        ) from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 text", hint="name a YAML or JSON file") from error
    except json.JSONDecodeError as error:
        raise SpecError(f"{path}, line {error.lineno}: {error.msg}", hint="correct the JSON") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(f"{path}, line {line}: {error.problem}", hint="correct the YAML") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{path} is not YAML: {error}", hint="correct the YAML") from error
    if not isinstance(given, dict):
        raise SpecError(
            f"{path} holds no fields", hint='write for example "kind: align" and the fields of that kind'
        )
    return given
