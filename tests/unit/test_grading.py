"""Levels by exact ceilings, and the score of a sample (section 3.1, Table 1)."""

from __future__ import annotations

import json
import math
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deft_engine import grading
from deft_engine.data.samples import read_index, write_samples
from deft_engine.errors import DataError
from deft_engine.events import EventWriter
from deft_engine.grading import cut_levels, disagreement, level_sizes, read_levels, sample_scores
from deft_engine.ranking import ranked_order
from deft_engine.run import StageContext, StopRequest
from deft_engine.scores import ScoreTable, read_score_table, read_scores, write_scores
from deft_engine.stages import GradeSpec
from deft_engine.types import Level, Message, Response, Sample

TABLE_1 = {42_536: 1_587, 43_835: 1_636, 22_002: 821, 52_420: 1_956}


def table(*rewards: list[float | None]) -> ScoreTable:
    flat = [np.nan if reward is None else reward for sample in rewards for reward in sample]
    offsets = np.cumsum([0, *map(len, rewards)])
    names = [f"s{n}" for n in range(len(rewards))]
    return ScoreTable(names, ["x"] * len(rewards), offsets, np.array(flat, dtype=np.float64))


@pytest.mark.parametrize(("samples", "expected"), TABLE_1.items())
def test_level_a_has_the_sizes_of_table_1(samples: int, expected: int) -> None:
    assert level_sizes(samples, 3.73, 12.5)[0] == expected


def test_a_share_that_divides_exactly_is_not_rounded_up_by_a_float_error() -> None:
    """29.3 as a double lies a little above 29.3, so its exact share of 1,000 would be rounded up to 294."""
    assert math.ceil(Fraction(29.3) / 100 * 1_000) == 294
    assert level_sizes(1_000, 29.3, 0) == (293, 0)


def test_a_small_subset_gives_level_a_the_preference() -> None:
    assert level_sizes(1, 3.73, 12.5) == (1, 0)
    assert level_sizes(3, 50, 50) == (2, 1)
    assert level_sizes(7, 100, 0) == (7, 0)


percent = st.decimals(min_value=0, max_value=50, places=3, allow_nan=False)


@settings(deadline=None)
@given(scores=st.lists(st.integers(-3, 3), min_size=1, max_size=40), a=percent, c=percent)
def test_levels_are_cut_from_the_sorted_scores(scores: list[int], a: Decimal, c: Decimal) -> None:
    """Against the rule in words: sort descending, ties by position, take the ends."""
    count = len(scores)
    first = int((a * count / 100).to_integral_value(ROUND_CEILING))
    last = min(int((c * count / 100).to_integral_value(ROUND_CEILING)), count - first)
    ranking = sorted(range(count), key=lambda position: (-scores[position], position))
    expected = ["B"] * count
    for position in ranking[:first]:
        expected[position] = "A"
    for position in ranking[count - last :]:
        expected[position] = "C"
    assert cut_levels(np.array(scores, dtype=np.float64), float(a), float(c)).tolist() == expected


@pytest.mark.parametrize(
    ("rank_by", "expected"),
    [("auto", [1.0, 3.0, 4.0]), ("annotation", [1.0, 3.0, 4.0]), ("reward", [5.0, 3.0, 4.0])],
)
def test_the_score_of_a_sample(rank_by: Any, expected: list[float]) -> None:
    rewards = table([1.0, 5.0], [3.0, 2.0], [0.0, 4.0, 2.0])
    assert sample_scores(rewards, rank_by).tolist() == expected


@pytest.mark.parametrize(
    ("rank_by", "score", "expected"),
    [
        ("auto", "margin", [-4.0, 1.0, 4.0]),
        ("annotation", "margin", [-4.0, 1.0, -2.0]),
        ("reward", "margin", [4.0, 1.0, 4.0]),
        ("auto", "closeness", [4.0, -1.0, -4.0]),
        ("annotation", "closeness", [4.0, -1.0, 2.0]),
        ("annotation", "first", [1.0, 3.0, 0.0]),
    ],
)
def test_margins_are_of_the_best_and_the_worst_as_they_rank(
    rank_by: Any, score: Any, expected: list[float]
) -> None:
    rewards = table([1.0, 5.0], [3.0, 2.0], [0.0, 4.0, 2.0])
    assert sample_scores(rewards, rank_by, score).tolist() == expected


def test_a_score_needs_the_rewards_that_it_reads_and_no_other() -> None:
    rewards = table([3.0, None, 1.0])
    assert sample_scores(rewards, "annotation", "margin").tolist() == [2.0]
    assert sample_scores(rewards, "annotation", "first").tolist() == [3.0]
    for rank_by, score in (("auto", "margin"), ("annotation", "best")):
        with pytest.raises(DataError, match='sample "s0"'):
            sample_scores(rewards, rank_by, score)  # type: ignore[arg-type]


def test_a_pair_needs_no_reward_of_its_rejected_response_unless_rewards_rank_it() -> None:
    rewards = table([1.0, None], [3.0, 2.0])
    assert sample_scores(rewards, "auto").tolist() == [1.0, 3.0]
    with pytest.raises(DataError, match=r'sample "s0" \(number 1\) lacks a reward'):
        sample_scores(rewards, "reward")
    with pytest.raises(DataError, match='sample "s1"'):
        sample_scores(table([1.0, 2.0], [1.0, None, 2.0]), "annotation")


def test_disagreement_counts_samples_against_their_annotated_order() -> None:
    rewards = table([2.0, 1.0], [1.0, 2.0], [1.0, 1.0], [3.0, 1.0, 2.0], [1.0, None], [9.0, 8.0, 7.0])
    assert disagreement(rewards) == 2 / 5
    assert disagreement(table([1.0, None])) is None


def test_ranked_order_follows_the_rule() -> None:
    assert ranked_order([1.0, 2.0], 2, "auto") == [0, 1]
    assert ranked_order([1.0, 2.0], 2, "reward") == [1, 0]
    assert ranked_order([1.0, 2.0, 2.0, 0.0], 4, "auto") == [1, 2, 0, 3]
    assert ranked_order([1.0, 2.0, 3.0], 3, "annotation") == [0, 1, 2]
    assert ranked_order(None, 2, "auto") == [0, 1]
    with pytest.raises(ValueError, match="1 of 3"):
        ranked_order([1.0, None, None], 3, "auto")


def write_dataset(folder: Path, rewards: list[list[float | None]], subsets: list[str]) -> None:
    samples = [
        Sample(f"s{n}", subset, (Message("user", "q"),), tuple(Response(str(k)) for k in range(len(sample))))
        for n, (sample, subset) in enumerate(zip(rewards, subsets, strict=True))
    ]
    write_samples(folder / "samples.parquet", samples)
    flat = [reward for sample in rewards for reward in sample]
    write_scores(folder / "scores.parquet", read_index(folder / "samples.parquet"), flat)


def run_grade(folder: Path, spec: GradeSpec) -> dict[str, Any]:
    inputs = {"samples": str(folder / "samples.parquet"), "scores": str(folder / "scores.parquet")}
    with EventWriter(folder / "events") as events:
        return grading.run(StageContext(spec, inputs, folder, folder, events, StopRequest()))


def test_the_stage_grades_each_subset_by_itself(tmp_path: Path) -> None:
    generator = np.random.default_rng(7)
    rewards: list[list[float | None]] = [generator.normal(size=2).tolist() for _ in range(300)]
    subsets = ["one" if n % 3 else "two" for n in range(300)]
    write_dataset(tmp_path, rewards, subsets)
    result = run_grade(tmp_path, GradeSpec(a=3.73, c=12.5, rank_by="auto"))
    assert result["subsets"] == {"one": {"A": 8, "B": 167, "C": 25}, "two": {"A": 4, "B": 83, "C": 13}}
    assert result["levels"] == {"A": 12, "B": 250, "C": 38}
    assert result["disagreement"] == pytest.approx(0.5, abs=0.1)
    levels = read_levels(tmp_path / "levels.parquet")
    histograms = json.loads((tmp_path / "grading.json").read_text())
    for name in ("one", "two"):
        scores = {f"s{n}": rewards[n][0] for n in range(300) if subsets[n] == name}
        a = min(score for key, score in scores.items() if levels[key] is Level.A)
        c = max(score for key, score in scores.items() if levels[key] is Level.C)
        middle = [score for key, score in scores.items() if levels[key] is Level.B]
        assert c <= min(middle) <= max(middle) <= a
        histogram = histograms[name]
        assert (histogram["cut_a"], histogram["cut_c"], histogram["n"]) == (a, c, len(scores))
        assert {level: sum(counts) for level, counts in histogram["counts"].items()} == result["subsets"][
            name
        ]
        assert all(len(counts) + 1 == len(histogram["edges"]) for counts in histogram["counts"].values())


def test_equal_scores_and_no_level_c_still_make_a_histogram(tmp_path: Path) -> None:
    write_dataset(tmp_path, [[1.0, None]] * 5, ["x"] * 5)
    assert run_grade(tmp_path, GradeSpec(a=20, c=0, rank_by="auto"))["levels"] == {"A": 1, "B": 4, "C": 0}
    histogram = json.loads((tmp_path / "grading.json").read_text())["x"]
    assert (histogram["cut_a"], histogram["cut_c"]) == (1.0, None)
    assert read_levels(tmp_path / "levels.parquet")["s0"] is Level.A, "of equal ones the first"


def test_scores_of_another_dataset_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, [[1.0, 2.0]] * 3, ["x"] * 3)
    (tmp_path / "other").mkdir()
    write_dataset(tmp_path / "other", [[1.0, 2.0]] * 4, ["x"] * 4)
    (tmp_path / "other" / "scores.parquet").rename(tmp_path / "scores.parquet")
    with pytest.raises(DataError, match="belong to other samples"):
        run_grade(tmp_path, GradeSpec(a=1, c=1, rank_by="auto"))


@settings(deadline=None)
@given(st.lists(st.lists(st.none() | st.floats(-5, 5), min_size=2, max_size=4), min_size=1, max_size=8))
def test_scores_survive_the_file(tmp_path_factory: pytest.TempPathFactory, rewards: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("scores")
    write_dataset(folder, rewards, [f"t{n % 2}" for n in range(len(rewards))])
    assert read_scores(folder / "scores.parquet") == {f"s{n}": sample for n, sample in enumerate(rewards)}
    read = read_score_table(folder / "scores.parquet")
    assert read.subsets == [f"t{n % 2}" for n in range(len(rewards))]
    assert np.diff(read.offsets).tolist() == [len(sample) for sample in rewards]
