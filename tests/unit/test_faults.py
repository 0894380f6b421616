"""What a wrong value is told."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from deft_engine.base import Spec, Text
from deft_engine.faults import faults


class _Asked(Spec):
    comment: Annotated[Text, Field(min_length=1, max_length=3)] = "a"
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (1,)


@pytest.mark.parametrize(
    ("given", "detail"),
    [
        ({"comment": ""}, "must have at least 1 characters"),
        ({"comment": "abcd"}, "must have at most 3 characters"),
        ({"seeds": []}, "Tuple should have at least 1 item after validation, not 0"),
        ({"seeds": ["a"]}, "Input should be a valid integer, unable to parse string as an integer"),
    ],
)
def test_a_length_is_of_characters_in_a_text_and_of_items_in_a_list(
    given: dict[str, object], detail: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        _Asked.model_validate(given)
    assert [fault.detail for fault in faults(caught.value.errors(), given)] == [detail]
