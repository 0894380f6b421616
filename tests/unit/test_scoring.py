"""Graders: one contract over all of them, and what each adds."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from deft_engine import scoring
from deft_engine.data.samples import write_samples
from deft_engine.errors import DataError, ModelError
from deft_engine.events import EventWriter
from deft_engine.graders import GRADERS, FileScores, RandomScores, RewardModelGrader
from deft_engine.run import StageContext, StopRequest
from deft_engine.scores import read_scores
from deft_engine.stages import ScoreSpec
from deft_engine.types import Message, Response, Sample

GRADER_EXAMPLES = (RewardModelGrader(model="r"), FileScores(), RandomScores())


def sample(name: str, *rewards: float | None, line: int = 1) -> Sample:
    responses = tuple(Response(f"{name} {k}", reward) for k, reward in enumerate(rewards))
    return Sample(name, "x", (Message("user", "q"),), responses, line)


SAMPLES = (sample("pair", 1.0, 2.0), sample("list", 0.5, -1.0, 0.25), sample("last", 0.0, -0.0))


@pytest.fixture
def reward_model(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for the scoring by a model, which has tests of its own; records the models' uris."""
    uris: list[str] = []

    def score_samples(
        model_uri: str, samples: Sequence[Sample], *, responses: str, **_: Any
    ) -> Iterator[list[float | None]]:
        uris.append(model_uri)
        for each in samples:
            first_only = responses == "first" and len(each.responses) == 2
            rewards = [float(len(response.text)) for response in each.responses]
            yield [rewards[0], None] if first_only else list(rewards)

    module = ModuleType("deft_engine.reward_scoring")
    module.score_samples = score_samples  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "deft_engine.reward_scoring", module)
    return uris


def score(folder: Path, samples: Sequence[Sample], grader: Any, responses: Any = "all") -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    write_samples(folder / "samples.parquet", samples)
    inputs = {"samples": str(folder / "samples.parquet")}
    if grader.needs_model:
        inputs["reward_model"] = "/models/r"
    with EventWriter(folder / "events") as events:
        spec = ScoreSpec(grader=grader, responses=responses)
        result = scoring.run(StageContext(spec, inputs, folder, folder, events, StopRequest()))
    return result


def test_every_grader_is_in_the_contract() -> None:
    assert {type(grader) for grader in GRADER_EXAMPLES} == set(GRADERS)


@pytest.mark.parametrize("grader", GRADER_EXAMPLES, ids=lambda grader: grader.name)
@pytest.mark.parametrize("responses", ["all", "first"])
@pytest.mark.usefixtures("reward_model")
def test_contract(grader: Any, responses: str, tmp_path: Path) -> None:
    """Finite rewards where needed, null elsewhere, in the samples' order, and again the same bytes."""
    results = [score(tmp_path / name, SAMPLES, grader, responses) for name in ("first", "second")]
    scores = read_scores(tmp_path / "first" / "scores.parquet")
    assert list(scores) == [each.id for each in SAMPLES]
    for each in SAMPLES:
        rewards = scores[each.id]
        needed = 1 if responses == "first" and len(each.responses) == 2 else len(each.responses)
        assert [reward is not None for reward in rewards] == [k < needed for k in range(len(each.responses))]
        assert all(isinstance(reward, float) for reward in rewards[:needed])
    assert results[0]["responses"] == 7
    assert results[0]["scored"] == (7 if responses == "all" else 5)
    files = [(tmp_path / name / "scores.parquet").read_bytes() for name in ("first", "second")]
    assert files[0] == files[1]


def test_file_scores_are_the_files(tmp_path: Path) -> None:
    score(tmp_path, SAMPLES, FileScores())
    assert read_scores(tmp_path / "scores.parquet") == {
        "pair": [1.0, 2.0],
        "list": [0.5, -1.0, 0.25],
        "last": [0.0, -0.0],
    }


def test_a_missing_file_score_names_line_sample_and_response(tmp_path: Path) -> None:
    samples = [*SAMPLES, sample("gap", 1.0, None, line=41)]
    with pytest.raises(DataError, match=r'line 41: response 2 of sample "gap" has no score'):
        score(tmp_path, samples, FileScores())
    assert score(tmp_path, samples, FileScores(), "first")["scored"] == 6


def test_random_scores_are_uniform_and_hang_on_seed_id_and_rank_alone(tmp_path: Path) -> None:
    samples = [sample(f"s{n}", None, None) for n in range(4_000)]
    score(tmp_path, samples, RandomScores(seed=1))
    scores = read_scores(tmp_path / "scores.parquet")
    flat = np.array(list(scores.values()), dtype=np.float64)
    assert 0 <= flat.min() < flat.max() < 1
    counts = np.histogram(flat, bins=10, range=(0, 1))[0]
    assert (abs(counts - 800) < 5 * 27).all(), "800 a bin, standard deviation 27"
    assert abs(np.corrcoef(flat.T)[0, 1]) < 0.08
    score(tmp_path / "reversed", samples[::-1], RandomScores(seed=1))
    assert read_scores(tmp_path / "reversed" / "scores.parquet") == scores
    score(tmp_path / "other", samples, RandomScores(seed=2))
    assert read_scores(tmp_path / "other" / "scores.parquet")["s0"] != scores["s0"]


def test_the_reward_model_is_the_stages_input(reward_model: list[str], tmp_path: Path) -> None:
    score(tmp_path, SAMPLES, RewardModelGrader(model="@reward_model"))
    assert reward_model == ["/models/r"]


def test_a_reward_that_is_no_number_names_its_sample(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = ModuleType("deft_engine.reward_scoring")
    module.score_samples = lambda *_, **__: iter([[1.0, float("nan")]])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "deft_engine.reward_scoring", module)
    with pytest.raises(ModelError, match='response 2 of sample "pair" is nan'):
        score(tmp_path, SAMPLES[:1], RewardModelGrader(model="r"))
