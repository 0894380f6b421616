"""How good a reward model is: each figure again by a plain loop or a textbook formula."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.stats

from deft_engine.data.samples import read_index, write_samples
from deft_engine.errors import DataError
from deft_engine.events import EventWriter
from deft_engine.reward_calibration import reliability
from deft_engine.reward_quality import run
from deft_engine.run import StageContext, StopRequest
from deft_engine.scores import write_scores
from deft_engine.stages import RewardQualitySpec
from deft_engine.train_reward import longer_wins
from deft_engine.training_data import RankedSample
from deft_engine.types import Message, Response, Sample


def samples_of(lengths: list[list[int]]) -> list[Sample]:
    return [
        Sample(f"s{i}", "ab"[i % 2], (Message("user", "?"),), tuple(Response("x" * n) for n in row))
        for i, row in enumerate(lengths)
    ]


def evaluate(
    folder: Path,
    lengths: list[list[int]],
    rewards: list[list[float]],
    others: list[list[float]] | None = None,
) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    (folder / "out").mkdir()
    write_samples(folder / "samples", samples_of(lengths))
    inputs = {"samples": str(folder / "samples")}
    for name, values in (("scores", rewards), ("other_scores", others)):
        if values is not None:
            flat = [reward for row in values for reward in row]
            write_scores(folder / name, read_index(folder / "samples"), flat)
            inputs[name] = str(folder / name)
    with EventWriter(folder / "events") as events:
        run(StageContext(RewardQualitySpec(), inputs, folder / "out", folder, events, StopRequest()))
    results: dict[str, Any] = json.loads((folder / "out" / "results.json").read_bytes())
    return results


def random_case(pairs: int, skill: float) -> tuple[list[list[int]], list[list[float]]]:
    chance = random.Random(5)
    lengths = [[chance.randint(1, 60), chance.randint(1, 60)] for _ in range(pairs)]
    return lengths, [
        [skill + chance.gauss(0, 1) + 0.01 * a, chance.gauss(0, 1) + 0.01 * b] for a, b in lengths
    ]


def wilson(right: int, n: int) -> tuple[float, float]:
    z = 1.959963984540054
    centre, spread = right + z * z / 2, z * math.sqrt(right * (n - right) / n + z * z / 4)
    return (centre - spread) / (n + z * z), (centre + spread) / (n + z * z)


def ranks(values: list[float]) -> list[float]:
    """From 1; equal values share the mean of theirs."""
    return [sum(w < v for w in values) + (1 + sum(w == v for w in values)) / 2 for v in values]


def test_every_figure_by_a_plain_loop(tmp_path: Path) -> None:
    lengths, rewards = random_case(90, 1.5)
    results = evaluate(tmp_path, lengths, rewards)
    for subset, start, step in (("a", 0, 2), ("b", 1, 2), (None, 0, 1)):
        own_lengths, own = lengths[start::step], rewards[start::step]
        figures = results["total"] if subset is None else results["subsets"][subset]
        right, longer = [a > b for a, b in own], [a > b for a, b in own_lengths]
        n = len(own)
        assert figures["accuracy"]["value"] == pytest.approx(sum(right) / n)
        assert figures["accuracy"]["interval"] == pytest.approx(wilson(sum(right), n))
        assert figures["longer_wins"]["value"] == pytest.approx(sum(longer) / n)
        assert figures["longer_wins"]["interval"] == pytest.approx(wilson(sum(longer), n))
        gains = np.array(right, float) - np.array(longer, float)
        assert figures["accuracy_gain"]["value"] == pytest.approx(gains.mean())
        expected = scipy.stats.bootstrap((gains,), np.mean, method="percentile", rng=np.random.default_rng(1))
        assert figures["accuracy_gain"]["interval"] == pytest.approx(
            tuple(expected.confidence_interval), abs=0.04
        )
        of_rewards = ranks([r for row in own for r in row])
        of_lengths = ranks([float(x) for row in own_lengths for x in row])
        rho = np.corrcoef(of_rewards, of_lengths)[0, 1]
        assert figures["length_correlation"]["value"] == pytest.approx(rho)
        bins: dict[int, list[tuple[float, bool]]] = {}
        for a, b in own:
            confidence = 1 / (1 + math.exp(-abs(a - b)))
            bins.setdefault(min(9, int((confidence - 0.5) / 0.05)), []).append((confidence, a > b))
        error = sum(abs(sum(hit for _, hit in x) - sum(c for c, _ in x)) for x in bins.values()) / n
        assert figures["calibration_error"]["value"] == pytest.approx(error)
        for figure in figures.values():
            assert figure["n"] == n
            assert figure["signature"]
        if subset is None:
            assert [row["n"] for row in results["calibration"]] == [len(bins.get(i, [])) for i in range(10)]
            for number, row in enumerate(results["calibration"]):
                if number in bins:
                    assert row["accuracy"] == pytest.approx(np.mean([hit for _, hit in bins[number]]))
    assert results["beats_longer"] is True
    assert results["warnings"] == []
    rows = pq.read_table(tmp_path / "out" / "sample_scores.parquet").to_pylist()
    assert [row["margin"] for row in rows] == pytest.approx([a - b for a, b in rewards])
    assert [row["accuracy_gain"] for row in rows] == [float(x) - float(y) for x, y in zip(
        [a > b for a, b in rewards], [a > b for a, b in lengths], strict=True)]  # fmt: skip


def test_a_model_that_counts_letters_is_no_better_than_the_baseline(tmp_path: Path) -> None:
    lengths, _ = random_case(40, 0)
    results = evaluate(tmp_path, lengths, [[float(n) for n in row] for row in lengths])
    assert results["total"]["accuracy_gain"]["value"] == 0
    assert results["total"]["length_correlation"]["value"] == pytest.approx(1)
    assert results["beats_longer"] is False
    (warning,) = results["warnings"]
    assert "longer wins" in warning
    assert "of 40 held-out pairs" in warning


def test_two_models_that_prefer_the_same_agree(tmp_path: Path) -> None:
    lengths, rewards = random_case(50, 0.5)
    chance = random.Random(2)
    others = [[chance.gauss(0, 1), chance.gauss(0, 1)] for _ in rewards]
    figures = evaluate(tmp_path / "two", lengths, rewards, others)["total"]
    same = sum((a > b) == (c > d) for (a, b), (c, d) in zip(rewards, others, strict=True))
    assert figures["agreement"]["value"] == pytest.approx(same / 50)
    assert figures["agreement"]["interval"] == pytest.approx(wilson(same, 50))
    assert figures["other_accuracy"]["value"] == pytest.approx(sum(a > b for a, b in others) / 50)
    margins = [ranks([a - b for a, b in rows]) for rows in (rewards, others)]
    assert figures["margin_correlation"]["value"] == pytest.approx(np.corrcoef(*margins)[0, 1])
    doubled = [[2 * a, 2 * b] for a, b in rewards]
    figures = evaluate(tmp_path / "one", lengths, rewards, doubled)["total"]
    assert figures["agreement"]["value"] == 1
    assert figures["margin_correlation"]["value"] == pytest.approx(1)


def test_of_a_list_the_best_stands_against_the_worst_and_ties_are_wrong(tmp_path: Path) -> None:
    results = evaluate(tmp_path, [[5, 9, 5], [3, 1, 2]], [[1.0, -9.0, 0.5], [0.0, 5.0, 0.0]])
    assert results["total"]["accuracy"]["value"] == 0.5
    assert results["total"]["accuracy"]["extra"] == {"ties": 1}
    assert results["total"]["longer_wins"]["value"] == 0.5
    assert results["total"]["longer_wins"]["extra"] == {"ties": 1}
    assert results["subsets"]["a"]["length_correlation"]["reason"], "one length alone"


def test_calibrated_margins_have_a_small_error_and_overconfident_ones_a_large_one() -> None:
    chance = np.random.default_rng(3)
    margins = np.abs(chance.normal(0, 2, 20_000))
    right = chance.random(20_000) < 1 / (1 + np.exp(-margins))
    for stretch, low, high in ((1.0, 0.0, 0.02), (4.0, 0.1, 0.4)):
        rows = [r for r in reliability(np.where(right, margins, -margins) * stretch) if r["n"]]
        error = sum(r["n"] * abs(r["accuracy"] - r["confidence"]) for r in rows) / 20_000
        assert low <= error < high


@pytest.mark.parametrize(
    ("lengths", "rewards", "words"),
    [([], [], "no pairs"), ([[1, 2]], [[float("inf"), 0.0]], "s0: the reward model gave no finite reward")],
)
def test_what_cannot_be_evaluated_is_an_error(
    tmp_path: Path, lengths: list[list[int]], rewards: list[list[float]], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        evaluate(tmp_path, lengths, rewards)


def test_longer_wins_counts_all_pairs_of_a_sample_as_one() -> None:
    rows = [RankedSample(sample, (0, 1, 2)) for sample in samples_of([[3, 2, 1], [1, 2, 2]])]
    assert longer_wins(rows) == pytest.approx((3 / 3 + 0 / 3) / 2)
