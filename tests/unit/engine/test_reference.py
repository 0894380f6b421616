"""The stage ``reference`` and the scoring of samples: right, and the same after interruptions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from deft_engine import resumable
from deft_engine.data.samples import StoredSamples, write_samples
from deft_engine.data.tokenise import tokenise
from deft_engine.errors import DataError, Interrupted
from deft_engine.events import EventWriter, read_events
from deft_engine.models import DtypeName, load_policy, load_reward_model, new_reward_model, save_model
from deft_engine.reference import run
from deft_engine.reward_scoring import score_samples
from deft_engine.run import StageContext, StopRequest
from deft_engine.stages import ReferenceSpec
from deft_engine.tokenizer import load_tokenizer
from deft_engine.types import Level, Message, Response, Sample
from tests.unit.engine.plain import plain_logps, plain_rewards
from tests.unit.engine.stage_folders import StopAtCheck

TINY = "builtin:tiny"
WORDS = ("please", "help", "me", "with", "a garden", "and", "the stove", "naïve 🙂", "<eos>")


def make_samples(count: int) -> list[Sample]:
    """Ragged samples of 2 to 4 responses and of unlike lengths."""
    return [
        Sample(
            id=f"s{index}",
            subset="x",
            prompt=(Message("user", " ".join(WORDS[: 1 + index % len(WORDS)])),),
            responses=tuple(
                Response(" ".join(WORDS[rank : rank + 1 + (index * 7 + rank) % 8]))
                for rank in range(2 + index % 3)
            ),
        )
        for index in range(count)
    ]


SAMPLES = make_samples(11)
BATCH_TOKENS = 80
NEVER = StopRequest()


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable, "WINDOW", 4)
    monkeypatch.setattr(resumable, "BATCH_TOKENS", BATCH_TOKENS)


@pytest.fixture
def events(tmp_path: Path) -> Iterator[EventWriter]:
    with EventWriter(tmp_path / "events-1.jsonl") as writer:
        yield writer


def context(
    tmp_path: Path,
    events: EventWriter,
    name: str,
    levels: tuple[Level, ...] = (),
    stop: StopRequest = NEVER,
) -> StageContext[ReferenceSpec]:
    samples = tmp_path / "samples.parquet"
    write_samples(samples, SAMPLES)
    out, work = tmp_path / name / "out", tmp_path / name / "work"
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(exist_ok=True)
    spec = ReferenceSpec(max_length=128, template="auto", dtype="float32", levels=levels)
    inputs = {"samples": str(samples), "model": TINY, "levels": str(tmp_path / "levels.parquet")}
    return StageContext(spec, inputs, out, work, events, stop)


def rows(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = pq.read_table(folder / "reference.parquet").to_pylist()
    return found


def test_reference_is_the_initial_policys_log_probability(tmp_path: Path, events: EventWriter) -> None:
    stage = context(tmp_path, events, "plain")
    result = run(stage)
    tokenizer, policy = load_tokenizer(TINY), load_policy(TINY, "float32")
    found = iter(rows(stage.out))
    for sample in SAMPLES:
        tokenised = tokenise(sample, tokenizer, "hh", 128, range(len(sample.responses)))
        with torch.no_grad():
            expected = plain_logps(policy, [tokenised])[0].tolist()
        for rank, response in enumerate(tokenised.responses):
            row = next(found)
            assert (row["sample_id"], row["rank"], row["length"]) == (sample.id, rank, len(response))
            assert row["logp"] == pytest.approx(expected[rank], abs=1e-4)
    assert next(found, None) is None
    assert result["samples"] == len(SAMPLES)
    assert result["responses"] == sum(len(sample.responses) for sample in SAMPLES)
    progress = [event["step"] for _, event in read_events(tmp_path / "events-1.jsonl", 0)]
    assert progress == [4, 8, 11]


@pytest.fixture
def told_of_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch a sample, and a report whenever there could be one."""
    monkeypatch.setattr("deft_engine.resumable.BATCH_TOKENS", 1)
    monkeypatch.setattr("deft_engine.resumable.REPORT_SECONDS", 0.0)


def progress_in(path: Path) -> list[int]:
    return [event["step"] for _, event in read_events(path, 0) if event["type"] == "progress"]


@pytest.mark.usefixtures("told_of_each_batch")
def test_a_long_window_tells_how_far_it_is(tmp_path: Path, events: EventWriter, reward_model: str) -> None:
    run(context(tmp_path, events, "plain"))
    of_reference = progress_in(tmp_path / "events-1.jsonl")
    with EventWriter(tmp_path / "scoring.jsonl") as others:
        list(score_samples(reward_model, SAMPLES, "all", 128, "auto", others, StopRequest(), tmp_path))

    for told in (of_reference, progress_in(tmp_path / "scoring.jsonl")):
        assert told == sorted(told)
        assert set(told) == set(range(len(SAMPLES) + 1))


def test_an_interrupted_reference_ends_with_the_same_bytes(tmp_path: Path, events: EventWriter) -> None:
    undisturbed = context(tmp_path, events, "undisturbed")
    run(undisturbed)
    with pytest.raises(Interrupted):
        run(context(tmp_path, events, "disturbed", stop=StopAtCheck(3)))
    done = sorted((tmp_path / "disturbed" / "work").glob("reference-*.json"))
    assert done
    stamps = [path.stat().st_mtime_ns for path in done]
    resumed = context(tmp_path, events, "disturbed")
    run(resumed)
    assert [path.stat().st_mtime_ns for path in done] == stamps  # not computed again
    expected = (undisturbed.out / "reference.parquet").read_bytes()
    assert (resumed.out / "reference.parquet").read_bytes() == expected


def test_only_the_wanted_levels_are_computed(
    tmp_path: Path, events: EventWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = {sample.id: Level.A if index < 3 else Level.B for index, sample in enumerate(SAMPLES)}
    monkeypatch.setattr("deft_engine.reference.read_levels", lambda path: levels)
    stage = context(tmp_path, events, "levels", (Level.A,))
    assert run(stage)["samples"] == 3
    assert {row["sample_id"] for row in rows(stage.out)} == {"s0", "s1", "s2"}
    with pytest.raises(DataError, match="no sample has level C"):
        run(context(tmp_path, events, "none", (Level.C,)))


@pytest.fixture
def reward_model(tmp_path: Path) -> str:
    folder = tmp_path / "reward_model"
    save_model(new_reward_model(TINY, "float32"), load_tokenizer(TINY), folder, "reward_model", "hh")
    return str(folder)


@pytest.mark.parametrize("responses", ["first", "all"])
def test_scores_are_the_reward_models(
    tmp_path: Path, events: EventWriter, reward_model: str, responses: str
) -> None:
    scores = list(
        score_samples(reward_model, SAMPLES, responses, 128, "auto", events, StopRequest(), tmp_path)
    )
    tokenizer, model = load_tokenizer(TINY), load_reward_model(reward_model, "float32")
    assert len(scores) == len(SAMPLES)
    for sample, row in zip(SAMPLES, scores, strict=True):
        tokenised = tokenise(sample, tokenizer, "hh", 128, range(len(sample.responses)))
        with torch.no_grad():
            expected: list[float | None] = plain_rewards(model, [tokenised])[0].tolist()
        if responses == "first" and len(sample.responses) == 2:
            expected[1] = None
        assert row == pytest.approx(expected, abs=1e-5)
    names = {
        name for _, event in read_events(tmp_path / "events-1.jsonl", 0) for name in event.get("values", ())
    }
    assert names == {"score/responses_per_second"}


def test_rewards_in_bfloat16_are_near_and_do_not_become_ties(
    tmp_path: Path, events: EventWriter, reward_model: str
) -> None:
    def score(dtype: DtypeName) -> list[float]:
        folder = tmp_path / dtype
        folder.mkdir()
        rows = score_samples(reward_model, SAMPLES, "all", 128, dtype, events, StopRequest(), folder)
        return [reward for row in rows for reward in row if reward is not None]

    exact, rounded = score("float32"), score("bfloat16")

    assert rounded == pytest.approx(exact, abs=0.05)
    assert rounded != exact
    assert len(set(rounded)) == len(set(exact))


def test_interrupted_scoring_ends_with_the_same_values(
    tmp_path: Path, events: EventWriter, reward_model: str
) -> None:
    def score(work: str, stop: StopRequest) -> list[list[float | None]]:
        folder = tmp_path / work
        folder.mkdir(exist_ok=True)
        return list(score_samples(reward_model, SAMPLES, "all", 128, "auto", events, stop, folder))

    expected = score("undisturbed", StopRequest())
    for checks in (0, 1, 2, 1):
        with pytest.raises(Interrupted):
            score("disturbed", StopAtCheck(checks))
    assert score("disturbed", StopRequest()) == expected


class Counted:
    """Samples that record how far they were read."""

    def __init__(self) -> None:
        self.read = 0

    def __len__(self) -> int:
        return len(SAMPLES)

    def __iter__(self) -> Iterator[Sample]:
        for sample in SAMPLES:
            self.read += 1
            yield sample


def test_of_many_samples_a_window_is_in_memory(
    tmp_path: Path, events: EventWriter, reward_model: str
) -> None:
    counted = Counted()
    scores = score_samples(reward_model, counted, "all", 128, "auto", events, StopRequest(), tmp_path)
    assert len(next(scores)) == len(SAMPLES[0].responses)
    assert counted.read == 4
    write_samples(tmp_path / "samples.parquet", SAMPLES)
    stored = StoredSamples(tmp_path / "samples.parquet")
    assert list(stored) == list(stored) == SAMPLES
    assert len(stored) == len(SAMPLES)


def test_batches_hold_every_sample_once_within_the_budget() -> None:
    tokenizer = load_tokenizer(TINY)
    inputs = [
        tokenise(sample, tokenizer, "hh", 128, range(len(sample.responses))) for sample in make_samples(40)
    ]
    batches = list(resumable.token_batches(inputs))
    assert sorted(index for batch in batches for index in batch) == list(range(40))
    assert len(batches) > 1
    for batch in batches:
        assert len(batch) == 1 or sum(inputs[index].tokens for index in batch) <= BATCH_TOKENS
