"""Graders: one contract over all of them, and what each adds."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from deft_engine import distribution, scoring
from deft_engine.builtin.tiny import TOKENIZER_FILE
from deft_engine.data.samples import write_samples
from deft_engine.errors import DataError, ModelError
from deft_engine.events import EventWriter
from deft_engine.graders import (
    GRADERS,
    DistributionGrader,
    FileScores,
    ImplicitReward,
    RandomScores,
    ResponseLength,
    RewardMargin,
    RewardModelGrader,
)
from deft_engine.run import StageContext, StopRequest
from deft_engine.scores import read_scores
from deft_engine.spec_sections import Thresholds
from deft_engine.stages import STAGES, DistributionSpec, ScoreSpec
from deft_engine.types import Message, Response, Sample

GRADER_EXAMPLES = (
    RewardModelGrader(model="r"),
    FileScores(),
    DistributionGrader(),
    DistributionGrader(difference=True),
    RewardMargin(),
    RewardMargin(model="r"),
    ImplicitReward(policy="p"),
    ImplicitReward(policy="p", reference="q", direction="high"),
    ResponseLength(),
    RandomScores(),
)
NEEDED = {"first": ([0], [0, 1, 2]), "all": ([0, 1], [0, 1, 2]), "best": ([0], [0]), "ends": ([0, 1], [0, 2])}
"""Of a pair, and of a list of three."""


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
            needed = NEEDED[responses][len(each.responses) - 2]
            yield [
                float(len(response.text)) if index in needed else None
                for index, response in enumerate(each.responses)
            ]

    module = ModuleType("deft_engine.reward_scoring")
    module.score_samples = score_samples  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "deft_engine.reward_scoring", module)
    return uris


def score(folder: Path, samples: Sequence[Sample], grader: Any, responses: Any = "all") -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    write_samples(folder / "samples.parquet", samples)
    inputs = {"samples": str(folder / "samples.parquet"), "tokenizer": "builtin:tiny"}
    with EventWriter(folder / "events") as events:
        if grader.needs_qdiff:
            counting = DistributionSpec(thresholds=Thresholds(), rank_by="annotation")
            distribution.run(StageContext(counting, inputs, folder, folder, events, StopRequest()))
            inputs["qdiff"] = str(folder / "qdiff.safetensors")
        for model in grader.models():
            inputs[model.input] = "/models/r" if model.input == "reward_model" else "builtin:tiny"
        spec = ScoreSpec(grader=grader.scorer(), responses=responses)
        return scoring.run(StageContext(spec, inputs, folder, folder, events, StopRequest()))


def test_every_grader_is_in_the_contract() -> None:
    assert {type(grader) for grader in GRADER_EXAMPLES} == set(GRADERS)


@pytest.mark.parametrize("grader", GRADER_EXAMPLES, ids=lambda grader: grader.name)
@pytest.mark.parametrize("responses", NEEDED)
@pytest.mark.usefixtures("reward_model")
def test_contract(grader: Any, responses: str, tmp_path: Path) -> None:
    """Finite rewards where needed, null elsewhere, in the samples' order, and again the same bytes."""
    results = [score(tmp_path / name, SAMPLES, grader, responses) for name in ("first", "second")]
    scores = read_scores(tmp_path / "first" / "scores.parquet")
    assert list(scores) == [each.id for each in SAMPLES]
    for each in SAMPLES:
        needed = NEEDED[responses][len(each.responses) - 2]
        rewards = scores[each.id]
        assert [index for index, reward in enumerate(rewards) if reward is not None] == needed
        assert all(isinstance(rewards[index], float) for index in needed)
    assert results[0]["responses"] == 7
    assert results[0]["scored"] == 2 * len(NEEDED[responses][0]) + len(NEEDED[responses][1])
    files = [(tmp_path / name / "scores.parquet").read_bytes() for name in ("first", "second")]
    assert files[0] == files[1]


@pytest.mark.parametrize("grader", GRADER_EXAMPLES, ids=lambda grader: grader.name)
def test_what_a_grader_says_of_itself_fits_together(grader: Any) -> None:
    """Its inputs are the stage's, its scorer hides its models' names, and grading gets what it reads."""
    scorer = grader.scorer()
    assert {model.input for model in grader.models()} <= {*STAGES["score"].optional_inputs}
    assert scorer.scorer() == scorer
    assert not {"r", "p", "q"} & {*scorer.model_dump().values()}
    rank_bys = ("auto", "annotation", "reward") if grader.ranks else ("annotation",)
    for rank_by in rank_bys:
        of_pair, of_list = NEEDED[grader.responses(rank_by)]
        if grader.ranks:
            assert of_list == [0, 1, 2]  # the min-max rule reads all of them
        reads_last = grader.sample_score in ("margin", "closeness") or rank_by == "reward"
        assert of_pair == [0, 1] or not reads_last
        assert of_list[-1] == 2 or not reads_last


def test_lengths_are_tokens_of_the_text_alone(tmp_path: Path) -> None:
    texts = ("one", "one two three four", "<eos> a stove", "")
    samples = [
        Sample(f"s{n}", "x", (Message("user", "q"),), (Response(text), Response("z")), n)
        for n, text in enumerate(texts)
    ]
    score(tmp_path, samples, ResponseLength(), "best")
    scores = read_scores(tmp_path / "scores.parquet")
    backend = Tokenizer.from_file(str(TOKENIZER_FILE))
    expected = [len(backend.encode(text, add_special_tokens=False).ids) for text in texts]
    assert [scores[f"s{n}"] for n in range(4)] == [[length, None] for length in expected]
    assert expected[1] > expected[0] > expected[3] == 0


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
