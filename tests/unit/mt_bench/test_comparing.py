import json
from pathlib import Path
from typing import Any

import pytest

from deft_engine.mt_bench.grading import read_preference
from deft_engine.run import EXIT_FAILED, EXIT_SUCCEEDED, StopRequest, execute
from deft_engine.stages import JudgeSpec
from tests.chat_server import Body, serving
from tests.unit.endpoints.stages import endpoint, error_of
from tests.unit.mt_bench.test_judging import QUESTIONS, answered, material, stage

pytestmark = pytest.mark.usefixtures("allowed")
BETTER = {"w1": "good", "w2": "good", "m1": "fair", "c1": "poor"}


def rival() -> list[Any]:
    """Another model's answers, all the same."""
    return [
        {"question_id": q["question_id"], "model_id": "rival",
         "choices": [{"turns": ["r"] * len(q["turns"])}]}
        for q in QUESTIONS
    ]  # fmt: skip


def play(body: Body) -> str:
    """A judge that knows good from poor, prefers what comes first between others, and is silent on s1."""
    a, b = material(body)["a"][-1], material(body)["b"][-1]
    asked = material(body)["turns"][-1]
    if asked == "s1":
        return "Hm. The answer says [[A]]"
    verdict = "A"
    if "fair" in (a, b):
        verdict = "C"
    elif "good" in (a, b):
        verdict = "A" if a == "good" else "B"
    elif "poor" in (a, b):
        verdict = "B" if a == "poor" else "A"
    return f"The first says {a}.\nVerdict: [[{verdict}]]"


def test_outcomes_are_what_both_orders_agree_on(tmp_path: Path) -> None:
    with serving(reply=play) as server:
        folder = stage(tmp_path / "run", "judge", JudgeSpec(max_new_tokens=99), endpoint(server),
                       questions=QUESTIONS, answers=answered(**BETTER), against=rival())  # fmt: skip
        assert execute(folder, StopRequest()) == EXIT_SUCCEEDED
    assert len(server.bodies) == 16  # 8 turns, two orders
    result = json.loads((folder / "out" / "mt_bench.json").read_bytes())
    total = result["total"]
    # w1, w2 won; c1 lost; m1 a tie; m2, s2, x1 changed with the order; s1 cannot be read
    assert [total[name] for name in ("wins", "ties", "losses", "inconsistent", "unparsed", "n")] == [
        2, 4, 1, 3, 1, 7
    ]  # fmt: skip
    assert total["value"] == pytest.approx((2 + 4 / 2) / 7)
    assert total["first_wins"] == pytest.approx(
        (3 + 6) / 12
    )  # half of 6 agreed verdicts, and all of the 6 others
    assert result["categories"]["writing"]["value"] == 1.0
    assert result["categories"]["coding"]["value"] == 0.0
    assert result["turns"]["2"]["n"] == 3
    assert (result["model"], result["against"]) == ("tested", "rival")
    assert len(result["warnings"]) == 2
    rows = [json.loads(line) for line in (folder / "out" / "judgments.jsonl").read_text().splitlines()]
    assert [row["outcome"] for row in rows][:3] == ["win", "win", "tie"]


def test_both_models_see_the_same_material_with_the_sides_exchanged(tmp_path: Path) -> None:
    with serving(reply=play) as server:
        folder = stage(tmp_path / "run", "judge", JudgeSpec(max_new_tokens=99), endpoint(server),
                       questions=QUESTIONS, answers=answered(), against=rival())  # fmt: skip
        assert execute(folder, StopRequest()) == EXIT_SUCCEEDED
    seen = [material(body) for body in server.bodies if material(body)["turns"][-1] == "m2"]
    assert sorted((one["a"], one["b"]) for one in seen) == [
        (["a m1", "a m2"], ["r", "r"]), (["r", "r"], ["a m1", "a m2"])
    ]  # fmt: skip
    assert [one["references"] for one in seen] == [["own 1", "own 2"]] * 2


@pytest.mark.parametrize(
    ("judgment", "verdict"),
    [("Verdict: [[A]]", "A"), ("x\n**verdict: [[b]]**", "B"), ("[[C]]\n", "C"), ("Verdict: [[D]]", None),
     ("Verdict: [[A]]\nbut B", None), ("[[A]] or [[B]]", None), ("", None)],
)  # fmt: skip
def test_a_verdict_stands_alone_on_the_last_line(judgment: str, verdict: str | None) -> None:
    assert read_preference(judgment) == verdict


def test_a_rival_without_answers_is_told(tmp_path: Path) -> None:
    with serving() as server:
        folder = stage(tmp_path / "run", "judge", JudgeSpec(max_new_tokens=9), endpoint(server),
                       questions=QUESTIONS, answers=answered(), against=rival()[:2])  # fmt: skip
        assert execute(folder, StopRequest()) == EXIT_FAILED
        assert server.bodies == []
    assert error_of(folder)["message"].startswith("against: question 3 has 1 turns, and 0 answers")
