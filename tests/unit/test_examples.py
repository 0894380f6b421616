from pathlib import Path

import pytest

from deft_engine.spec_file import read_job

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.yaml"))


def test_there_is_an_example_of_every_kind() -> None:
    assert {read_job(path).kind for path in EXAMPLES} == {
        "align",
        "grade",
        "reward_model",
        "evaluate",
        "augment",
        "judge",
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_a_job_and_says_how_it_is_run(path: Path) -> None:
    assert read_job(path).name != "untitled"
    assert f"deft run examples/{path.name} --out runs/" in path.read_text(encoding="utf-8")
