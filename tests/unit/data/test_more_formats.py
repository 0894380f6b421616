"""PRO's lists, UltraFeedback's completions and ShareGPT's pairs: what each way of writing them means."""

from __future__ import annotations

from typing import Any

import pytest

from deft_engine.data import pro, sharegpt, ultrafeedback
from deft_engine.data.formats import READERS, tell_format
from deft_engine.data.validate import RowError
from deft_engine.types import Message, Response

PROMPT = (Message("user", " Hi "),)
TAGGED = ["<|prompter|>", " Hi ", "<|assistant|>"]


@pytest.mark.parametrize(
    "prefix",
    [
        [TAGGED, TAGGED],
        ["".join(TAGGED)] * 2,
        "".join(TAGGED),
        TAGGED,
        "\n\nHuman:  Hi \n\nAssistant:",
        " Hi ",
    ],
    ids=["one-each", "strings", "one-for-all", "pieces", "hh", "plain"],
)
def test_each_form_of_a_prefix_reads_the_same(prefix: Any) -> None:
    row = {"prefix": prefix, "suffix": ["a ", "b"], "reward": [0.5, -1], "sft_index": 0}
    assert tell_format(row) == "pro"
    assert pro.read(row) == (PROMPT, (Response("a ", 0.5), Response("b", -1.0)))


def test_the_turns_of_a_tagged_prefix_are_kept_byte_for_byte() -> None:
    prefix = "<|prompter|>a <|b|>\n\nHuman: c<|assistant|> d<|prompter|>e<|assistant|>"
    prompt, responses = pro.read({"prefix": prefix, "suffix": [" x", "y"]})
    assert prompt == (
        Message("user", "a <|b|>\n\nHuman: c"),
        Message("assistant", " d"),
        Message("user", "e"),
    )
    assert responses == (Response(" x"), Response("y"))


@pytest.mark.parametrize(
    ("fields", "order"),
    [
        ({"reward": [1, 3, 2], "sft_index": 2}, "cba"),
        ({"reward": [1, 3, 2]}, "bca"),
        ({"sft_index": 1}, "bac"),
        ({"reward": [1, None, 2], "sft_index": 1}, "bac"),
        ({}, "abc"),
    ],
)
def test_the_annotated_response_of_pro_comes_first_and_rewards_order_the_rest(
    fields: dict[str, Any], order: str
) -> None:
    _, responses = pro.read({"prefix": "q", "suffix": ["a", "b", "c"], **fields})
    assert "".join(response.text for response in responses) == order


def test_completions_are_ordered_by_their_overall_score() -> None:
    completions = [
        {"response": " worse", "overall_score": 2, "model": "m"},
        {"response": "best\n", "overall_score": 7.5},
        {"response": "also 2", "overall_score": 2},
    ]
    row = {"source": "s", "instruction": " Hi ", "completions": completions, "models": ["m"]}
    assert tell_format(row) == "ultrafeedback"
    assert ultrafeedback.read(row) == (
        PROMPT,
        (Response("best\n", 7.5), Response(" worse", 2.0), Response("also 2", 2.0)),
    )


def test_sharegpt_turns_become_messages() -> None:
    row = {
        "system": "Be kind.",
        "conversations": [
            {"from": "human", "value": " Hi "},
            {"from": "gpt", "value": "Hello"},
            {"from": "user", "value": "So?"},
        ],
        "chosen": {"from": "gpt", "value": " good "},
        "rejected": {"value": "bad"},
    }
    assert tell_format(row) == "sharegpt"
    prompt, responses = sharegpt.read(row)
    assert [message.role for message in prompt] == ["system", "user", "assistant", "user"]
    assert [message.content for message in prompt] == ["Be kind.", " Hi ", "Hello", "So?"]
    assert responses == (Response(" good "), Response("bad"))


TURN = {"from": "human", "value": "q"}
SIDES = {"chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}}


@pytest.mark.parametrize(
    ("name", "row", "code", "words"),
    [
        ("pro", {"prefix": "q", "suffix": "ab"}, "wrong_type", '"suffix" is a string'),
        ("pro", {"prefix": "q", "suffix": ["a", 1]}, "wrong_type", '"suffix"[1]'),
        ("pro", {"prefix": ["q", ["r"]], "suffix": ["a", "b"]}, "no_shared_prompt", "differ"),
        ("pro", {"prefix": [["q"]], "suffix": ["a", "b"]}, "wrong_type", "1 entries for 2"),
        ("pro", {"prefix": 3, "suffix": ["a", "b"]}, "wrong_type", '"prefix" is a number'),
        ("pro", {"prefix": "q", "suffix": ["a", "b"], "reward": [1]}, "invalid_score", "1 entries for 2"),
        ("pro", {"prefix": "q", "suffix": ["a", "b"], "reward": [1, "2"]}, "invalid_score", '"reward"[1]'),
        ("pro", {"prefix": "q", "suffix": ["a", "b"], "sft_index": 2}, "wrong_type", "none of the 2"),
        ("pro", {"prefix": "q", "suffix": ["a", "b"], "sft_index": True}, "wrong_type", "none of the 2"),
        ("ultrafeedback", {"instruction": "q", "completions": {}}, "wrong_type", "an object"),
        ("ultrafeedback", {"instruction": "q", "completions": ["a"]}, "wrong_type", "overall_score"),
        (
            "ultrafeedback",
            {"instruction": "q", "completions": [{"response": "a"}, {"response": "b"}]},
            "invalid_score",
            "completions",
        ),
        ("sharegpt", {"conversations": "q", **SIDES}, "wrong_type", "a string"),
        ("sharegpt", {"conversations": [{"from": "tool", "value": "x"}], **SIDES}, "wrong_type", '"tool"'),
        ("sharegpt", {"conversations": [{"from": "human"}], **SIDES}, "wrong_type", "[0].value is null"),
        ("sharegpt", {"conversations": [TURN], **SIDES, "chosen": TURN}, "wrong_type", "must be gpt"),
        ("sharegpt", {"conversations": [TURN], **SIDES, "rejected": "b"}, "wrong_type", "a string"),
    ],
)
def test_unusable_rows(name: str, row: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(RowError) as caught:
        READERS[name](row)
    assert caught.value.code == code
    assert words in caught.value.detail
