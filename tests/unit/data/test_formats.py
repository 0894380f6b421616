"""Pairs and ranked lists: what each way of writing them means."""

from __future__ import annotations

from typing import Any

import pytest

from deft_engine.data import pairwise, ranked
from deft_engine.data.formats import tell_format
from deft_engine.data.validate import RowError
from deft_engine.types import Message, Response

USER = {"role": "user", "content": "Hi"}
GOOD = {"role": "assistant", "content": " Hello! "}
BAD = {"role": "assistant", "content": "No."}
PROMPT = (Message("user", "Hi"),)
PAIR = (Response(" Hello! "), Response("No."))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": " Hello! ", "rejected": "No."},
        {"prompt": [USER], "chosen": " Hello! ", "rejected": "No."},
        {"messages": [USER], "chosen": " Hello! ", "rejected": "No."},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": "Hi", "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "Hi", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    ],
    ids=["strings", "prompt-list", "messages", "conversational", "mixed", "implicit", "ultrafeedback"],
)
def test_each_form_of_a_pair_reads_the_same(row: dict[str, Any]) -> None:
    assert tell_format(row) == "pairwise"
    assert pairwise.read(row) == (PROMPT, PAIR)


def test_the_scores_of_a_pair_are_kept_and_do_not_reorder_it() -> None:
    row = {"prompt": "Hi", "chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 9.5}
    assert pairwise.read(row)[1] == (Response("a", 1.0), Response("b", 9.5))


def test_a_transcript_prompt_becomes_turns_and_its_separating_space_goes() -> None:
    row = {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": "  a", "rejected": " b"}
    assert tell_format(row) == "pairwise"
    assert pairwise.read(row) == (PROMPT, (Response(" a"), Response("b")))


@pytest.mark.parametrize(
    ("row", "code", "words"),
    [
        ({"prompt": "Hi", "chosen": "a"}, "missing_field", '"rejected"'),
        ({"chosen": "a", "rejected": "b"}, "missing_field", '"prompt"'),
        ({"prompt": "Hi", "chosen": "a", "rejected": [BAD]}, "wrong_type", "a string and a list"),
        ({"prompt": 7, "chosen": "a", "rejected": "b"}, "wrong_type", "a number"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b", "score_chosen": "9"}, "invalid_score", '"9"'),
        ({"prompt": "Hi", "chosen": "a", "rejected": "b", "score_chosen": True}, "invalid_score", "true"),
        (
            {"chosen": [USER, GOOD, USER, GOOD], "rejected": [USER, BAD, USER, GOOD]},
            "no_shared_prompt",
            "3 mess",
        ),
        ({"prompt": [USER], "chosen": [USER], "rejected": [USER]}, "empty_response", "no message"),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [USER]}, "wrong_type", "must be assistant"),
        ({"chosen": [{"role": "bot", "content": ""}], "rejected": [BAD]}, "wrong_type", '"bot"'),
        ({"prompt": ["Hi"], "chosen": "a", "rejected": "b"}, "wrong_type", '"prompt"[0]'),
    ],
)
def test_unusable_pairs(row: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(RowError) as caught:
        pairwise.read(row)
    assert caught.value.code == code
    assert words in caught.value.detail


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "Hi", "responses": ["a", "b", "c"]}, [("a", None), ("b", None), ("c", None)]),
        (
            {"query": "Hi", "responses": ["a", "b", "c"], "scores": [0, 2, 2.0]},
            [("b", 2.0), ("c", 2.0), ("a", 0.0)],
        ),
        (
            {"messages": [USER], "responses": [{"text": "a", "score": -1}, {"text": "b", "score": 3}]},
            [("b", 3.0), ("a", -1.0)],
        ),
        (
            {"prompt": "Hi", "responses": [{"text": "a"}, {"text": "b", "score": 3}]},
            [("a", None), ("b", 3.0)],
        ),
        ({"prompt": "Hi", "responses": ["a", "b"], "scores": [None, 1]}, [("a", None), ("b", 1.0)]),
    ],
    ids=["best-first", "rrhf", "objects", "partly-scored", "null-score"],
)
def test_ranked_lists(row: dict[str, Any], expected: list[tuple[str, float | None]]) -> None:
    assert tell_format(row) == "ranked"
    prompt, responses = ranked.read(row)
    assert prompt == PROMPT
    assert [tuple(response) for response in responses] == expected


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"prompt": "Hi", "responses": ["a", "b"], "scores": [1]}, "invalid_score"),
        ({"prompt": "Hi", "responses": ["a", "b"], "scores": [1, 10**400]}, "invalid_score"),
        ({"prompt": "Hi", "responses": "ab"}, "wrong_type"),
        ({"prompt": "Hi", "responses": ["a", 3]}, "wrong_type"),
        ({"prompt": "Hi", "responses": [{"score": 3}, "b"]}, "wrong_type"),
        ({"prompt": "Hi", "responses": ["a", "b"], "scores": 3}, "wrong_type"),
        ({"responses": ["a", "b"]}, "missing_field"),
    ],
)
def test_unusable_lists(row: dict[str, Any], code: str) -> None:
    with pytest.raises(RowError) as caught:
        ranked.read(row)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}, "hh_rlhf"),
        ({"chosen": "a", "rejected": "b"}, "hh_rlhf"),
        (
            {
                "prompt": "a",
                "chosen": "\n\nHuman: a\n\nAssistant: b",
                "rejected": "\n\nHuman: a\n\nAssistant: c",
            },
            "hh_rlhf",
        ),
        ({"prompt": "a", "chosen": "b", "rejected": None}, None),
        ({"responses": ["a"]}, None),
        ({"instruction": "a", "output": "b"}, None),
    ],
)
def test_the_fields_tell_the_format(row: dict[str, Any], name: str | None) -> None:
    assert tell_format(row) == name
