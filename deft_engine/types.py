"""The data that flows between stages, without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)
Role = Literal["system", "user", "assistant"]


class Level(StrEnum):
    """Quality level of a sample (section 3.1): A is the best ``a`` percent, C the worst ``c``, B the rest."""

    A = "A"
    B = "B"
    C = "C"


class Message(NamedTuple):
    """One turn of a prompt, its text byte for byte as uploaded."""

    role: Role
    content: str


class Response(NamedTuple):
    """One response; ``reward`` is the score that came with the file, if any."""

    text: str
    reward: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt and l >= 2 responses, best first as annotated (x, y_1 ... y_l in the paper)."""

    id: str
    subset: str
    prompt: tuple[Message, ...]
    responses: tuple[Response, ...]
    line: int = 0  # 1-based line (or row) in the uploaded file

    @property
    def chosen(self) -> Response:
        """y_1, the annotated best response."""
        return self.responses[0]

    @property
    def rejected(self) -> Response:
        """y_l, the annotated worst response."""
        return self.responses[-1]


class Counted(Protocol[T_co]):
    """What can be counted and gone through again: a list, or a file that is read each time."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T_co]: ...


Samples = Counted[Sample]


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that was not used: an entry of the ledger."""

    line: int
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Generation:
    """A model's answer to a prompt, a line of ``generations.jsonl``."""

    sample_id: str
    subset: str
    prompt: tuple[Message, ...]
    response: str
    reference: str


@dataclass(frozen=True, slots=True)
class Score:
    """A figure with what is needed to read it: how many samples, and how it was computed."""

    value: float | None
    n: int
    signature: str
    reason: str = ""  # why ``value`` is None
    extra: dict[str, float] = field(default_factory=dict)
    interval: tuple[float, float] | None = None  # 95%, where the figure has one of its own

    def as_json(self) -> dict[str, Any]:
        """``value, n, signature, reason``; ``extra`` and ``interval`` where there are any."""
        optional = ("extra", "interval")
        return {name: value for name, value in asdict(self).items() if name not in optional or value}
