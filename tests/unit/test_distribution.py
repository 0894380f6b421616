"""Q+, Q- and Q_diff against a plain oracle written from section 3.2."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from deft_engine import distribution, grading
from deft_engine.data.samples import read_index, write_samples
from deft_engine.distribution import counted_samples, load_qdiff, select_responses, subtract
from deft_engine.errors import DataError, ModelError
from deft_engine.events import EventWriter
from deft_engine.run import StageContext, StopRequest
from deft_engine.scores import ScoreTable, write_scores
from deft_engine.spec_sections import Thresholds
from deft_engine.stages import DistributionSpec, GradeSpec
from deft_engine.tokenizer import tokenizer_sha256
from deft_engine.types import Message, Response, Sample

WORDS = ("ja", "nein", "gut", "schlecht", "vielleicht", "oft", "nie", "heute")

# -- the oracle: plain lists, one sample at a time, in the words of the paper


def oracle_sides(
    rewards: list[float | None], level: str, rank_by: str, limits: Thresholds
) -> tuple[list[int], list[int]]:
    """Which responses of one sample count into Q+, and which into Q-."""
    count = len(rewards)
    order = list(range(count))
    if rank_by == "reward" or (rank_by == "auto" and count > 2):
        order.sort(key=lambda k: -rewards[k])  # type: ignore[operator]
    best, *middle, worst = order
    good, bad = [best], [worst]
    if not middle or max(rewards) == min(rewards):  # type: ignore[type-var]
        return good, bad
    for k in middle:
        r = (rewards[k] - min(rewards)) / (max(rewards) - min(rewards))  # type: ignore[operator,type-var]
        if level == "A" and r > limits.a_positive:
            good.append(k)
        if level == "B" and r > limits.b_positive:
            good.append(k)
        if level == "B" and r < limits.b_negative:
            bad.append(k)
        if level == "C" and r < limits.c_negative:
            bad.append(k)
    return good, bad


def masks_as_sides(
    positive: Any, negative: Any, rewards: list[list[float | None]]
) -> list[tuple[list[int], list[int]]]:
    sides, start = [], 0
    for sample in rewards:
        part = slice(start, start + len(sample))
        sides.append((np.flatnonzero(positive[part]).tolist(), np.flatnonzero(negative[part]).tolist()))
        start += len(sample)
    return sides


def table(rewards: list[list[float | None]]) -> ScoreTable:
    flat = [np.nan if reward is None else reward for sample in rewards for reward in sample]
    offsets = np.cumsum([0, *map(len, rewards)])
    names = [f"s{n}" for n in range(len(rewards))]
    return ScoreTable(names, ["x"] * len(rewards), offsets, np.array(flat, dtype=np.float64))


reward = st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.5, 0.8, 0.85, 0.9, 0.95, 1.0]) | st.floats(-10, 10)
graded = st.lists(st.tuples(st.lists(reward, min_size=2, max_size=6), st.sampled_from("ABC")), min_size=1)


@settings(deadline=None)
@given(graded, st.sampled_from(["auto", "annotation", "reward"]), st.booleans())
def test_responses_are_selected_as_the_paper_says(
    samples: list[tuple[list[float | None], str]], rank_by: Any, custom: bool
) -> None:
    limits = (
        Thresholds(a_positive=0.5, b_positive=0.3, b_negative=0.6, c_negative=1) if custom else Thresholds()
    )
    rewards = [sample for sample, _ in samples]
    levels = np.array([level for _, level in samples])
    positive, negative = select_responses(table(rewards), levels, limits, rank_by)
    expected = [oracle_sides(sample, level, rank_by, limits) for sample, level in samples]
    assert masks_as_sides(positive, negative, rewards) == [
        (sorted(good), sorted(bad)) for good, bad in expected
    ]


@pytest.mark.parametrize(("level", "good", "bad"), [("A", [0, 1], [5]), ("B", [0], [5]), ("C", [0], [4, 5])])
def test_a_list_of_six_by_hand(level: str, good: list[int], bad: list[int]) -> None:
    """Min-max rewards 1, .85, .8, .5, .15, 0."""
    rewards: list[list[float | None]] = [[20.0, 17.0, 16.0, 10.0, 3.0, 0.0]]
    positive, negative = select_responses(table(rewards), np.array([level]), Thresholds(), "auto")
    assert masks_as_sides(positive, negative, rewards) == [(good, bad)]


def test_thresholds_are_strict() -> None:
    rewards: list[list[float | None]] = [[10.0, 8.0, 0.0], [10.0, 9.0, 1.0, 0.0], [10.0, 2.0, 0.0]]
    positive, negative = select_responses(table(rewards), np.array(["A", "B", "C"]), Thresholds(), "auto")
    assert masks_as_sides(positive, negative, rewards) == [([0], [2]), ([0], [3]), ([0], [2])]


def test_equal_rewards_count_the_ends_alone() -> None:
    rewards: list[list[float | None]] = [[2.0, 2.0, 2.0]]
    positive, negative = select_responses(table(rewards), np.array(["A"]), Thresholds(), "auto")
    assert masks_as_sides(positive, negative, rewards) == [([0], [2])]


def test_pairs_in_annotated_order_need_no_reward() -> None:
    rewards: list[list[float | None]] = [[1.0, None], [None, None]]
    positive, negative = select_responses(table(rewards), np.array(["A", "C"]), Thresholds(), "auto")
    assert masks_as_sides(positive, negative, rewards) == [([0], [1]), ([0], [1])]
    for missing, rank_by in ((rewards, "reward"), ([[1.0, 2.0], [1.0, None, 0.0]], "annotation")):
        with pytest.raises(DataError, match="lacks a reward that its distribution needs"):
            select_responses(table(missing), np.array(["A", "C"]), Thresholds(), rank_by)  # type: ignore[arg-type]


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 10**7), min_size=2, max_size=200),
    st.lists(st.integers(0, 10**7), min_size=2, max_size=200),
)
def test_the_sides_sum_to_one_and_their_difference_to_zero(good: list[int], bad: list[int]) -> None:
    size = max(len(good), len(bad))
    counts = [np.array(side + [0] * (size - len(side)), dtype=np.int64) for side in (good, bad)]
    if not all(side.any() for side in counts):
        with pytest.raises(DataError, match="is empty"):
            subtract(*counts, "x")
        return
    qdiff = subtract(*counts, "x")
    assert math.fsum(qdiff.q_pos) == pytest.approx(1, abs=1e-12)
    assert math.fsum(qdiff.q_neg) == pytest.approx(1, abs=1e-12)
    assert abs(math.fsum(qdiff.q_diff)) < 1e-20
    expected = [
        g / sum(good) - b / sum(bad) for g, b in zip(*(side.tolist() for side in counts), strict=True)
    ]
    assert np.abs(qdiff.q_diff - expected).max() < 1e-13


# -- the stage, with a tokenizer of its own


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE that adds BOS and EOS to a text, and truncates: none of which may be counted."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator([" ".join(WORDS)] * 5, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    backend.enable_truncation(3)
    backend.enable_padding(length=8)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").touch()  # a model folder has weights; the tokenizer needs none


text = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
ragged = st.lists(
    st.lists(st.tuples(text, st.integers(-4, 4).map(float)), min_size=2, max_size=5), min_size=1, max_size=12
)


def run_stage(folder: Path, samples: list[Sample], tokenizer: str, **spec: Any) -> dict[str, Any]:
    """Grade and count, with a fifth of the data in A and in C."""
    inputs = {name: str(folder / f"{name}.parquet") for name in ("samples", "scores", "levels")}
    write_samples(folder / "samples.parquet", samples)
    rewards = [response.reward for sample in samples for response in sample.responses]
    write_scores(folder / "scores.parquet", read_index(folder / "samples.parquet"), rewards)
    with EventWriter(folder / "events") as events:
        grade = GradeSpec(a=20, c=20, rank_by="auto")
        grading.run(StageContext(grade, inputs, folder, folder, events, StopRequest()))
        count = DistributionSpec(thresholds=Thresholds(), rank_by="auto", **spec)
        inputs["tokenizer"] = tokenizer
        return distribution.run(StageContext(count, inputs, folder, folder, events, StopRequest()))


def as_samples(lists: list[list[tuple[str, float]]]) -> list[Sample]:
    prompt = (Message("user", "nie gezählt"),)
    return [Sample(f"s{n}", "x", prompt, tuple(Response(*r) for r in each)) for n, each in enumerate(lists)]


@settings(max_examples=15, deadline=None)
@given(lists=ragged)
def test_the_stage_counts_what_the_oracle_counts(
    lists: list[list[tuple[str, float]]],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("stage")
    save(tokenizer, folder / "tokenizer")
    samples = as_samples(lists)
    result = run_stage(folder, samples, str(folder / "tokenizer"))
    levels = grading.read_levels(folder / "levels.parquet")
    good: Counter[int] = Counter()
    bad: Counter[int] = Counter()
    for sample in samples:
        rewards = [response.reward for response in sample.responses]
        sides = oracle_sides(rewards, levels[sample.id].value, "auto", Thresholds())
        for side, counter in zip(sides, (good, bad), strict=True):
            for k in side:
                text = sample.responses[k].text
                counter.update(
                    tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
                )
    with safe_open(folder / "qdiff.safetensors", framework="numpy") as file:
        for name, counter in (("q_pos", good), ("q_neg", bad)):
            found = file.get_tensor(name)
            assert found.shape == (len(tokenizer),)
            total = sum(counter.values())
            assert {int(k): v for k, v in enumerate(found) if v} == pytest.approx(
                {k: n / total for k, n in counter.items()}, abs=1e-15
            )
    assert (result["tokens_pos"], result["tokens_neg"]) == (sum(good.values()), sum(bad.values()))


def test_a_smaller_share_is_part_of_every_larger_one() -> None:
    ids = [f"s{number}" for number in range(1000)]
    shares = [set(np.flatnonzero(counted_samples(ids, percent))) for percent in (0.01, 1, 3, 10, 30, 100)]
    assert [len(share) for share in shares] == [1, 10, 30, 100, 300, 1000]
    assert all(smaller < larger for smaller, larger in pairwise(shares))
    shuffled = counted_samples(ids[::-1], 10)[::-1]
    assert set(np.flatnonzero(shuffled)) == shares[3]  # whatever the order


def test_only_the_counted_samples_make_q_diff(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    save(tokenizer, tmp_path / "tokenizer")
    samples = lists_of(("ja gut", "nein"), ("oft oft", "nie nie"), ("heute", "vielleicht"), ("gut", "ja"))
    (chosen,) = np.flatnonzero(counted_samples([sample.id for sample in samples], 25))
    result = run_stage(tmp_path, samples, str(tmp_path / "tokenizer"), percent=25)
    expected = [
        len(tokenizer(samples[chosen].responses[k].text, add_special_tokens=False)["input_ids"])
        for k in (0, 1)
    ]
    assert [result["tokens_pos"], result["tokens_neg"]] == expected
    assert (result["responses_pos"], result["responses_neg"]) == (1, 1)


def lists_of(*texts: tuple[str, str]) -> list[Sample]:
    return as_samples([[(chosen, 1.0), (rejected, 0.0)] for chosen, rejected in texts])


def test_the_artifact_is_readable_refuses_other_tokenizers_and_has_the_same_bytes(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save(tokenizer, tmp_path / "tokenizer")
    samples = lists_of(("gut </s> oft", "schlecht"), ("ja oft", "nein <s>"))
    contents = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        result = run_stage(tmp_path / name, samples, str(tmp_path / "tokenizer"))
        contents.append((tmp_path / name / "qdiff.safetensors").read_bytes())
    assert contents[0] == contents[1]
    digest = tokenizer_sha256(tokenizer)
    qdiff = load_qdiff(tmp_path / "first" / "qdiff.safetensors", digest)
    assert qdiff.q_diff.dtype == np.float64
    assert qdiff.q_diff.flags.writeable, "torch.from_numpy warns otherwise"
    assert (qdiff.q_pos[:2] == 0).all(), "a special token that a text spells out is ordinary text"
    assert (qdiff.q_neg[:2] == 0).all()
    spelled = tokenizer("</s>", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert all(qdiff.q_pos[token] > 0 for token in spelled)
    counts = qdiff.scaled("counts")
    assert counts.sum() == result["tokens_pos"] - result["tokens_neg"]
    (slash,) = tokenizer("/", add_special_tokens=False)["input_ids"]
    assert counts[slash] == 1
    with safe_open(tmp_path / "first" / "qdiff.safetensors", framework="numpy") as file:
        assert file.metadata() == {
            "tokenizer_sha256": digest,
            "tokens_pos": str(result["tokens_pos"]),
            "tokens_neg": str(result["tokens_neg"]),
            "responses_pos": "2",
            "responses_neg": "2",
        }
    with pytest.raises(ModelError, match="another tokenizer"):
        load_qdiff(tmp_path / "first" / "qdiff.safetensors", "0" * 64)
    tokens = json.loads((tmp_path / "first" / "qdiff_tokens.json").read_text())
    positive = tokens["top_positive"]
    assert " oft" in [token["text"] for token in positive]
    assert [token["q_diff"] for token in positive] == sorted((t["q_diff"] for t in positive), reverse=True)
    assert all(token["q_diff"] == pytest.approx(token["q_pos"] - token["q_neg"]) for token in positive)
    assert all(token["q_diff"] < 0 for token in tokens["top_negative"])
    assert result["top_positive"][0] == {"text": positive[0]["text"], "q_diff": positive[0]["q_diff"]}


def test_a_side_without_tokens_is_an_error(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    save(tokenizer, tmp_path / "tokenizer")
    with pytest.raises(DataError, match="Q- is empty"):
        run_stage(tmp_path, lists_of(("gut", "")), str(tmp_path / "tokenizer"))
