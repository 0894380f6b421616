"""What a wrong value is told."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from deft_engine.base import Spec, Text
from deft_engine.faults import faults


class _Asked(Spec):
    comment: Annotated[Text, Field(min_length=1, max_length=3)] = "a"
    seeds: Annotated[tuple[int, ...], Field(min_length=1, max_length=2)] = (1,)
    rate: Annotated[float, Field(gt=0, le=1)] = 1
    steps: Annotated[int, Field(ge=2, lt=9)] = 3
    order: Literal["up", "down"] = "up"
    keep: bool = True
    about: dict[str, str] | None = None


@pytest.mark.parametrize(
    ("given", "detail"),
    [
        ({"comment": ""}, "must have at least 1 characters"),
        ({"comment": "abcd"}, "must have at most 3 characters"),
        ({"comment": 5}, "must be a string, not 5"),
        ({"seeds": []}, "must have at least 1 entries, and has 0"),
        ({"seeds": [1, 2, 3]}, "must have at most 2 entries"),
        ({"seeds": ["a"]}, "must be a whole number"),
        ({"seeds": [1.5]}, "must be a whole number, not 1.5"),
        ({"seeds": {"a": 1}}, "must be a list"),
        ({"rate": "fast"}, "must be a number"),
        ({"rate": None}, "must be a number, not null"),
        ({"rate": 0}, "must be greater than 0.0, not 0"),
        ({"rate": 2}, "must be at most 1.0, not 2"),
        ({"rate": float("nan")}, "must be a finite number, not NaN"),
        ({"steps": 1}, "must be at least 2, not 1"),
        ({"steps": 9}, "must be less than 9, not 9"),
        ({"order": "{gt}"}, "must be 'up' or 'down'"),
        ({"order": False}, "must be 'up' or 'down', not false"),
        ({"keep": "perhaps"}, "must be true or false"),
        ({"about": "it"}, "must be an object"),
    ],
)
def test_a_wrong_value_is_told_what_it_must_be(given: dict[str, object], detail: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _Asked.model_validate(given)
    assert [fault.detail for fault in faults(caught.value.errors(), given)] == [detail]
