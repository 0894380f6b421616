"""A loaded model answers MT-Bench's questions as transformers' own ``generate`` does, turn after turn."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from deft_engine.models import load_policy
from deft_engine.run import EXIT_SUCCEEDED, StopRequest, execute
from deft_engine.stages import AnswerLocallySpec
from deft_engine.tokenizer import load_tokenizer
from tests.unit.endpoints.stages import result_of
from tests.unit.mt_bench.test_judging import QUESTIONS

SPEC = AnswerLocallySpec(
    max_new_tokens=12, max_prompt_length=4096, batch_size=3, dtype="float32", template="hh", model_id="job:j"
)


def folder_of(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS), encoding="utf-8")
    request = {
        "stage": "answer_locally",
        "fingerprint": "f" * 64,
        "spec": SPEC.model_dump(),
        "inputs": {"questions": str(questions), "model": "builtin:tiny"},
        "input_ids": {"questions": "id", "model": "id"},
    }
    (folder / "stage.json").write_text(json.dumps(request), encoding="utf-8")
    return folder


def plain_answers(turns: list[str]) -> list[str]:
    """The dialogue in HH's form, a turn at a time, by ``generate``."""
    tokenizer, model = load_tokenizer("builtin:tiny"), load_policy("builtin:tiny", "float32").eval()
    said, answers = "", []
    for turn in turns:
        said += f"\n\nHuman: {turn}\n\nAssistant:"
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(said, add_special_tokens=False)]])
        new = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        text = tokenizer.decode(new[0, ids.shape[1] :], skip_special_tokens=True)
        answers.append(text.partition("\n\nHuman:")[0].partition("\n\nAssistant:")[0].removeprefix(" "))
        said += f" {answers[-1]}"
    return answers


def test_turns_are_asked_with_the_answers_before_them(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    assert execute(folder, StopRequest()) == EXIT_SUCCEEDED
    rows = [json.loads(line) for line in (folder / "out" / "answers.jsonl").read_text().splitlines()]
    assert [row["question_id"] for row in rows] == [1, 2, 3, 4, 5]
    assert {row["model_id"] for row in rows} == {"job:j"}
    for row, question in zip(rows, QUESTIONS, strict=True):
        assert row["choices"] == [{"index": 0, "turns": plain_answers(question["turns"])}]
    result = result_of(folder)
    assert result["questions"] == 5
    assert result["at_limit"] * SPEC.max_new_tokens <= result["tokens"] <= 8 * SPEC.max_new_tokens
    assert result["tokens"] > 0
