import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from deft_client.demo_data import SUBSETS, generate, without_scores, write_jsonl


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return list(generate(4_000, seed=5))


def test_a_row_depends_on_the_seed_and_its_place_alone(rows: list[dict[str, Any]]) -> None:
    assert list(generate(50, seed=5)) == rows[:50]
    assert list(generate(50, seed=6)) != rows[:50]
    assert len({row["id"] for row in rows}) == len(rows)


def test_subsets_are_as_large_as_the_paper_s(rows: list[dict[str, Any]]) -> None:
    total = sum(SUBSETS.values())
    assert total == 160_793
    for name, size in SUBSETS.items():
        share = sum(row["subset"] == name for row in rows) / len(rows)
        assert share == pytest.approx(size / total, abs=0.03)


def test_answers_differ_and_are_ranked_by_their_score(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        scores = [response["score"] for response in row["responses"]]
        assert scores == sorted(scores, reverse=True)
        assert 2 <= len(scores) == len({response["text"] for response in row["responses"]}) <= 4


def test_scores_follow_the_rules_that_the_docstring_states(rows: list[dict[str, Any]]) -> None:
    polite = ("I am glad", "That is a good question", "Thank you", "Of course", "I am sorry", "I understand")
    for row in rows:
        for response in row["responses"]:
            text, points = response["text"], 0.0
            sentences = re.findall(r"[^.]+\.", text)
            points += 0.5 * text.startswith(polite)
            points += "because" in text
            points -= len(sentences) != len({sentence.strip() for sentence in sentences})
            if row["subset"] == "harmless-base":
                points += 2 * ("I will not help you to" in text) + ("You could" in text)
                points -= 3 * text.startswith(("Sure", "Yes", "Do it at night", "Good idea"))
            else:
                points += 2 * ("To " in text) + ("To " in text or "You should" in text) + ("Then" in text)
                points -= 2 * ("You should" in text)
            assert abs(response["score"] - points) < 0.1, text


def test_prompts_vary_and_the_words_are_few(rows: list[dict[str, Any]]) -> None:
    assert len({json.dumps(row["prompt"]) for row in rows}) > 3_000
    text = json.dumps([row["responses"] for row in rows])
    assert len(set(re.findall(r"[a-z]+", text.lower()))) < 500


def test_only_online_prompts_have_earlier_turns(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["subset"] == "helpful-online":
            assert [message["role"] for message in row["prompt"]] == ["user", "assistant", "user"]
        else:
            assert isinstance(row["prompt"], str)


def test_rows_without_scores_keep_their_order(rows: list[dict[str, Any]]) -> None:
    for scored, plain in zip(rows, islice(without_scores(rows), 20), strict=False):
        assert plain["responses"] == [response["text"] for response in scored["responses"]]
        assert {**plain, "responses": None} == {**scored, "responses": None}


def test_the_file_has_a_row_a_line(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "demo.jsonl", 7, seed=5)
    lines = (tmp_path / "demo.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == list(generate(7, seed=5))
