r"""HH transcripts: the boundary is the last ``\n\nAssistant:`` that both sides share, text byte for byte."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_engine.data import hh
from deft_engine.data.validate import RowError
from deft_engine.types import Message
from tests.unit.data.conftest import Importer

TAGS = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}


def joined(prompt: tuple[Message, ...]) -> str:
    """The transcript up to and including the tag that the responses follow, written independently."""
    return "".join(TAGS[message.role] + message.content for message in prompt) + "\n\nAssistant:"


def test_every_real_row_is_split_where_the_data_says(shared_data: Path, import_upload: Importer) -> None:
    """hh-pairs-train holds prompt and responses apart: an oracle that our reader has not made."""
    with gzip.open(shared_data / "hh-pairs-train" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    transcripts = [
        {
            "id": row["id"],
            "subset": row["subset"],
            "chosen": row["prompt"] + row["chosen"],
            "rejected": row["prompt"] + row["rejected"],
        }
        for row in rows
    ]
    result = import_upload(transcripts, packed=True)
    assert result.summary["format"] == "hh_rlhf"
    assert len(result.samples) + len(result.ledger) == len(rows) == 6814
    assert result.ledger == []
    for row, sample in zip(rows, result.samples, strict=True):
        assert (sample.id, sample.subset) == (row["id"], row["subset"])
        assert joined(sample.prompt) == row["prompt"]
        assert " " + sample.chosen.text == row["chosen"]
        assert " " + sample.rejected.text == row["rejected"]
        tags = row["prompt"].split("\n\nHuman:")
        assert sum(message.role == "user" for message in sample.prompt) == len(tags) - 1
    assert result.summary["subsets"] == {
        "harmless-base": 1839,
        "helpful-base": 1878,
        "helpful-online": 919,
        "helpful-rejection-sampled": 2178,
    }
    separate = import_upload(rows)
    assert separate.summary["format"] == "pairwise"
    assert separate.samples == result.samples, "a transcript prompt in a field of its own reads the same"


def test_untagged_paragraphs_belong_to_the_turn_before() -> None:
    shared = "\n\nHuman: a list\n\nMilk: two\n\nAssistant: x\n\nBread\n\nHuman: go\n\nAssistant:"
    prompt, responses = hh.read(
        {"chosen": shared + " yes\n\nof course", "rejected": shared + " no\n\nHuman: ok"}
    )
    assert prompt == (
        Message("user", "a list\n\nMilk: two"),
        Message("assistant", "x\n\nBread"),
        Message("user", "go"),
    )
    assert [response.text for response in responses] == ["yes\n\nof course", "no\n\nHuman: ok"]


def test_shared_words_of_the_responses_stay_in_the_responses() -> None:
    prompt, responses = hh.read(
        {"chosen": "\n\nHuman: q\n\nAssistant: I am sure", "rejected": "\n\nHuman: q\n\nAssistant: I am sad"}
    )
    assert prompt == (Message("user", "q"),)
    assert [response.text for response in responses] == ["I am sure", "I am sad"]


def test_whitespace_is_kept_but_for_one_separating_space() -> None:
    prompt, responses = hh.read(
        {"chosen": "\n\nHuman:  q \n\nAssistant:   two \n", "rejected": "\n\nHuman:  q \n\nAssistant:\ttab"}
    )
    assert prompt == (Message("user", " q "),)
    assert [response.text for response in responses] == ["  two \n", "\ttab"]


def test_sides_that_part_early_are_cut_at_the_last_tag_they_share() -> None:
    prompt, responses = hh.read(
        {
            "chosen": "\n\nHuman: q\n\nAssistant: a\n\nHuman: more\n\nAssistant: b",
            "rejected": "\n\nHuman: q\n\nAssistant: c\n\nHuman: more\n\nAssistant: b",
        }
    )
    assert prompt == (Message("user", "q"),)
    assert responses[0].text == "a\n\nHuman: more\n\nAssistant: b"


@pytest.mark.parametrize(
    ("chosen", "rejected", "code"),
    [
        ("\n\nHuman: a\n\nAssistant: x", "\n\nHuman: b\n\nAssistant: y", "no_shared_prompt"),
        ("Human: a\n\nAssistant: x", "Human: a\n\nAssistant: y", "unparseable_transcript"),
        ("\n\nHuman: a", "\n\nHuman: a b", "unparseable_transcript"),
        ("\n\nHuman: a\n\nAssistant: x", "\n\nHuman: a\n\nAssistant: x", "identical_responses"),
    ],
)
def test_unusable_transcripts(chosen: str, rejected: str, code: str) -> None:
    with pytest.raises(RowError) as caught:
        hh.read({"chosen": chosen, "rejected": rejected})
    assert caught.value.code == code


content = st.text().filter(lambda text: "\n\nHuman:" not in text and "\n\nAssistant:" not in text)


@settings(deadline=None)
@given(
    turns=st.lists(st.tuples(content, content), min_size=0, max_size=3),
    question=content,
    chosen=content,
    rejected=content,
)
def test_any_conversation_survives_the_round_trip(
    turns: list[tuple[str, str]], question: str, chosen: str, rejected: str
) -> None:
    pairs = [pair for human, assistant in turns for pair in (("user", human), ("assistant", assistant))]
    prompt = "".join(TAGS[role] + text for role, text in [*pairs, ("user", question)]) + "\n\nAssistant:"
    if chosen == rejected or prompt.count("\n\nAssistant:") != len(turns) + 1:
        return
    read_prompt, responses = hh.read({"chosen": f"{prompt} {chosen}", "rejected": f"{prompt} {rejected}"})
    assert joined(read_prompt) == prompt
    assert [response.text for response in responses] == [chosen, rejected]
