"""R_dis and the implicit reward as graders: their definitions, and the same after interruptions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from deft_engine import distribution, resumable, scoring
from deft_engine.data.samples import write_samples
from deft_engine.data.tokenise import tokenise
from deft_engine.errors import Interrupted, ModelError
from deft_engine.events import EventWriter, read_events
from deft_engine.graders import DistributionGrader, ImplicitReward
from deft_engine.models import load_policy
from deft_engine.run import StageContext, StopRequest
from deft_engine.scores import read_scores
from deft_engine.spec_sections import Thresholds
from deft_engine.stages import DistributionSpec, ScoreSpec
from deft_engine.tokenizer import load_tokenizer
from tests.unit.engine.moved import save_moved
from tests.unit.engine.plain import plain_logps
from tests.unit.engine.stage_folders import StopAtCheck
from tests.unit.engine.test_reference import NEVER, SAMPLES, TINY

BETA = 0.3
Score = Callable[..., dict[str, list[float | None]]]


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "WINDOW", 4)
    monkeypatch.setattr(resumable, "BATCH_TOKENS", 80)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model, moved a little."""
    return save_moved(tmp_path_factory.mktemp("tuned"))


@pytest.fixture
def score(tmp_path: Path) -> Score:
    """Runs the stage ``score``, with Q_diff counted before where it is needed."""
    samples = tmp_path / "samples.parquet"
    write_samples(samples, SAMPLES)

    def run(grader: Any, name: str = "s", stop: StopRequest = NEVER, **inputs: str) -> Any:
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        given = {"samples": str(samples), "tokenizer": TINY, **inputs}
        with EventWriter(out / "events") as events:
            if grader.needs_qdiff:
                counting = DistributionSpec(thresholds=Thresholds(), rank_by="annotation")
                distribution.run(StageContext(counting, given, out, out, events, StopRequest()))
                given["qdiff"] = str(out / "qdiff.safetensors")
            spec = ScoreSpec(
                grader=grader, responses=grader.responses("annotation"), max_length=128, dtype="float32"
            )
            scoring.run(StageContext(spec, given, out, out, events, stop))
        return read_scores(out / "scores.parquet")

    return run


def test_r_dis_is_equations_13_to_17_over_all_data(score: Score) -> None:
    """Counts by hand, then the mean over a response's tokens of Q_diff . log softmax, all of it."""
    scores = score(DistributionGrader(difference=True), model=TINY)
    tokenizer, model = load_tokenizer(TINY), load_policy(TINY, "float64")
    q = {1: torch.zeros(len(tokenizer), dtype=torch.float64)}
    q[-1] = torch.zeros_like(q[1])
    for sample in SAMPLES:
        for sign, response in ((1, sample.responses[0]), (-1, sample.responses[-1])):
            for token in tokenizer(
                response.text, add_special_tokens=False, split_special_tokens=True
            ).input_ids:
                q[sign][token] += 1
    q_diff = q[1] / q[1].sum() - q[-1] / q[-1].sum()
    for sample in SAMPLES:
        ends = (0, len(sample.responses) - 1)
        tokenised = tokenise(sample, tokenizer, "hh", 128, ends)
        for rank, ids in zip(ends, tokenised.responses, strict=True):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([tokenised.prompt + ids])).logits[0].double()
            predictions = torch.log_softmax(logits, dim=-1)[len(tokenised.prompt) - 1 : -1]
            expected = float((predictions @ q_diff).sum()) / len(ids)
            assert scores[sample.id][rank] == pytest.approx(expected, abs=1e-6)
        assert [reward is None for reward in scores[sample.id]] == [
            rank not in ends for rank in range(len(sample.responses))
        ]


def test_the_implicit_reward_is_beta_times_the_log_ratio(score: Score, tuned: str) -> None:
    grader = ImplicitReward(policy=tuned, beta=BETA)
    scores = score(grader, model=tuned, reference_model=TINY)
    tokenizer = load_tokenizer(TINY)
    policy, reference = load_policy(tuned, "float32"), load_policy(TINY, "float32")
    for sample in SAMPLES:
        ends = (0, len(sample.responses) - 1)
        tokenised = tokenise(sample, tokenizer, "hh", 128, ends)
        with torch.no_grad():
            ratio = (plain_logps(policy, [tokenised]) - plain_logps(reference, [tokenised]))[0].tolist()
        found = [scores[sample.id][rank] for rank in ends]
        assert found == pytest.approx([BETA * value for value in ratio], abs=1e-4)
    assert max(abs(row[0] or 0) for row in scores.values()) > 0.01


def test_a_policy_that_did_not_move_has_no_implicit_reward(score: Score) -> None:
    scores = score(ImplicitReward(policy="x"), model=TINY, reference_model=TINY)
    assert {reward for row in scores.values() for reward in row if reward is not None} == {0.0}


@pytest.mark.parametrize("name", ["distribution", "implicit"])
def test_interrupted_scoring_ends_with_the_same_values(name: str, score: Score, tuned: str) -> None:
    grader: Any = DistributionGrader() if name == "distribution" else ImplicitReward(policy="x")
    inputs = {"model": tuned, "reference_model": TINY}
    expected = score(grader, "undisturbed", **inputs)
    for checks in (0, 1, 2):
        with pytest.raises(Interrupted):
            score(grader, "disturbed", StopAtCheck(checks), **inputs)
    assert score(grader, "disturbed", **inputs) == expected


def test_progress_runs_once_over_both_models(score: Score, tuned: str, tmp_path: Path) -> None:
    score(ImplicitReward(policy="x"), model=tuned, reference_model=TINY)
    events = [event for _, event in read_events(tmp_path / "s" / "events", 0)]
    steps = [(event["step"], event["total"]) for event in events if event["type"] == "progress"]
    assert steps == sorted(steps)
    assert steps[-1] == (len(SAMPLES), len(SAMPLES))
    paced = [event["step"] for event in events if event["type"] == "metrics"]
    assert paced == sorted(set(paced))


def test_another_tokenizer_is_refused(score: Score, tuned: str, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = iter("ab")
    monkeypatch.setattr("deft_engine.policy_scoring.tokenizer_sha256", lambda _: next(digests))
    with pytest.raises(ModelError, match="different tokenizers"):
        score(ImplicitReward(policy="x"), model=tuned, reference_model=TINY)
