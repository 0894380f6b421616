from pathlib import Path

import pytest

from deft_client.cli.spec_files import read_spec
from deft_engine.experiments.arms import jobs_of
from deft_engine.experiments.spec import ExperimentSpec
from deft_engine.spec_file import read_job

FOLDER = Path(__file__).resolve().parents[2] / "examples"
EXPERIMENT = FOLDER / "experiment.yaml"
EXAMPLES = sorted(set(FOLDER.glob("*.yaml")) - {EXPERIMENT})


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


def test_the_example_of_an_experiment_is_one() -> None:
    assert len(jobs_of(ExperimentSpec.model_validate(read_spec(EXPERIMENT)))) == 18
    assert "deft experiments create examples/experiment.yaml" in EXPERIMENT.read_text(encoding="utf-8")
