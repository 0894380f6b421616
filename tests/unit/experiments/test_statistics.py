"""The bootstrap, corpus BLEU from counts, Holm: against scipy, sacrebleu and figures by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats
from sacrebleu.metrics import BLEU

from deft_engine.evaluators import Rated
from deft_engine.evaluators.bleu import corpus_counts
from deft_engine.experiments.results import TOTAL, ArmRuns, Evaluated, arm_figures
from deft_engine.experiments.statistics import corpus_bleu, holm
from deft_engine.sample_scores import SampleScores
from deft_engine.types import Generation, Message

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree", "and", "then", "slept"]
SEEDS = (1, 2, 3)


def evaluated(values: np.ndarray, *, subsets: list[str] | None = None, signature: str = "s") -> Evaluated:
    """A run whose figure ``reward`` has these values."""
    ids = [f"p{number}" for number in range(len(values))]
    scores = SampleScores(ids, subsets or ["x"] * len(values), {"reward": np.asarray(values, float)})
    return Evaluated(scores, {"reward": signature}, {})


def arms(samples: int = 120, shift: float = 0.3) -> tuple[list[ArmRuns], np.ndarray, np.ndarray]:
    """A baseline, and an arm that is better by ``shift``; both ``[seeds, samples]``."""
    chance = np.random.default_rng(1)
    prompts = chance.normal(size=samples)
    base = prompts + chance.normal(0, 0.5, (len(SEEDS), samples))
    better = prompts + shift + chance.normal(0, 0.5, (len(SEEDS), samples))
    made = [
        ArmRuns(name, baseline, {seed: evaluated(run) for seed, run in zip(SEEDS, runs, strict=True)})
        for name, baseline, runs in (("base", None, base), ("better", "base", better))
    ]
    return made, base, better


def near(found: Any, expected: Any) -> None:
    """Two Monte-Carlo intervals of one quantity: ends that differ by less than a tenth of the width."""
    width = expected.high - expected.low
    assert abs(found[0] - expected.low) < 0.1 * width
    assert abs(found[1] - expected.high) < 0.1 * width


def test_intervals_and_p_values_are_those_of_scipy() -> None:
    made, base, better = arms(shift=0.08)
    figure = arm_figures(made)[1].total["reward"]
    assert figure.value == pytest.approx(better.mean())
    assert figure.sd == pytest.approx(np.std(better.mean(axis=1), ddof=1))
    assert (figure.n, figure.seeds) == (120, 3)
    per_prompt, gains = better.mean(axis=0), (better - base).mean(axis=0)
    expected = scipy.stats.bootstrap(
        (per_prompt,), np.mean, method="percentile", rng=np.random.default_rng(9)
    )
    near(figure.interval, expected.confidence_interval)
    difference = figure.difference
    assert difference is not None
    assert difference.value == pytest.approx(gains.mean())
    expected = scipy.stats.bootstrap((gains,), np.mean, method="percentile", rng=np.random.default_rng(9))
    near(difference.interval, expected.confidence_interval)
    assert difference.p_value == pytest.approx(scipy.stats.ttest_1samp(gains, 0).pvalue, abs=0.04)
    assert difference.p_corrected == difference.p_value  # one comparison


def test_pairing_over_prompts_narrows_the_interval() -> None:
    made, base, better = arms()
    difference = arm_figures(made)[1].total["reward"].difference
    assert difference is not None
    assert difference.interval is not None
    unpaired = 1.96 * np.sqrt((base.mean(axis=0).var() + better.mean(axis=0).var()) / 120)
    assert difference.interval[1] - difference.interval[0] < 0.7 * 2 * unpaired
    assert difference.p_value == pytest.approx(2 / 2001)  # no resample on the other side


def test_the_table_is_the_same_every_time() -> None:
    made, _, _ = arms()
    assert arm_figures(made) == arm_figures(made)


def test_corpus_bleu_of_summed_counts_is_sacrebleu_s() -> None:
    chance = np.random.default_rng(3)
    texts = [[" ".join(chance.choice(WORDS, chance.integers(0, 9))) for _ in range(40)] for _ in range(2)]
    texts[0][:3] = ["the cat sat on the mat and then slept", "", "Zürich!"]
    texts[1][:3] = ["the cat sat on the mat and then slept", "no", "zzz"]
    answers = [
        Rated(Generation("s", "x", (Message("user", "?"),), response, reference), None)
        for response, reference in zip(*texts, strict=True)
    ]
    counts = np.array(corpus_counts(answers), dtype=float)
    groups = [
        [0],
        [1],
        [2],
        [0, 2],
        list(range(40)),
        *(chance.integers(0, 40, 12).tolist() for _ in range(60)),
    ]
    for group in groups:
        expected = BLEU().corpus_score([texts[0][i] for i in group], [[texts[1][i] for i in group]]).score
        assert corpus_bleu(counts[group].sum(axis=0)) == pytest.approx(expected, abs=1e-9), group


def test_perplexity_s_interval_and_difference_are_of_pooled_tokens() -> None:
    chance = np.random.default_rng(8)
    tokens = chance.integers(1, 60, 80).astype(float)
    losses = [tokens * chance.gamma(4, 0.5, 80), tokens * chance.gamma(4, 0.55, 80)]
    ids = [f"s{number}" for number in range(80)]
    made = [
        ArmRuns(name, baseline, {1: Evaluated(
            SampleScores(ids, ["x"] * 80, {"perplexity": np.stack([loss, tokens], axis=1)}),
            {"perplexity": "p"}, {},
        )})
        for name, baseline, loss in (("base", None, losses[0]), ("other", "base", losses[1]))
    ]  # fmt: skip
    figure = arm_figures(made)[1].total["perplexity"]
    pooled = [float(np.exp(loss.sum() / tokens.sum())) for loss in losses]
    assert figure.value == pytest.approx(pooled[1])
    assert figure.difference is not None
    assert figure.difference.value == pytest.approx(pooled[1] - pooled[0])
    expected = scipy.stats.bootstrap(
        (losses[1], tokens),
        lambda loss, count, axis=-1: np.exp(loss.sum(axis=axis) / count.sum(axis=axis)),
        paired=True,
        method="percentile",
        rng=np.random.default_rng(9),
    )
    near(figure.interval, expected.confidence_interval)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_p_values_are_corrected_over_the_arms_of_a_figure_and_subset() -> None:
    made, base, _ = arms()
    chance = np.random.default_rng(5)
    made += [
        ArmRuns(f"noise {n}", "base", {s: evaluated(base[0] + chance.normal(0.1, 1, 120)) for s in SEEDS})
        for n in range(3)
    ]
    found = [row.total["reward"].difference for row in arm_figures(made)[1:]]
    p_values = [difference.p_value for difference in found if difference is not None]
    corrected = [difference.p_corrected for difference in found if difference is not None]
    order = np.argsort(p_values)  # type: ignore[arg-type]
    steps = [(4 - rank) * p_values[i] for rank, i in enumerate(order)]  # type: ignore[operator]
    assert [corrected[i] for i in order] == pytest.approx(np.minimum(1, np.maximum.accumulate(steps)))


def test_subsets_are_apart_and_the_total_is_over_samples() -> None:
    values = np.array([1.0, 3.0, 10.0, 20.0, 30.0])
    run = evaluated(values, subsets=["a", "a", "b", "b", "b"])
    row = arm_figures([ArmRuns("one", None, {1: run})])[0]
    assert {name: figures["reward"].value for name, figures in row.subsets.items()} == {"a": 2.0, "b": 20.0}
    assert row.total["reward"].value == pytest.approx(12.8)
    assert (row.total["reward"].sd, row.total["reward"].difference) == (None, None)


def test_a_model_as_it_is_is_compared_with_every_seed() -> None:
    made, base, _ = arms()
    zero_shot = np.full(120, 0.25)
    table = arm_figures([made[0], ArmRuns("0-shot", "base", {None: evaluated(zero_shot)})])
    difference = table[1].total["reward"].difference
    assert difference is not None
    assert difference.value == pytest.approx(0.25 - base.mean())


def test_only_seeds_of_both_are_compared_while_jobs_run() -> None:
    made, base, better = arms()
    half = ArmRuns("better", "base", {2: made[1].runs[2]})
    figure = arm_figures([made[0], half])[1].total["reward"]
    assert figure.value == pytest.approx(better[1].mean())
    assert figure.difference is not None
    assert figure.difference.value == pytest.approx((better[1] - base[1]).mean())
    none = ArmRuns("better", "base", {})
    assert arm_figures([made[0], none])[1].total == {}


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (evaluated(np.arange(119.0)), "other samples"),
        (evaluated(np.arange(120.0), signature="another"), "signatures differ"),
        (evaluated(np.full(120, np.nan)), "no such figure"),
        (None, "not evaluated yet"),
    ],
)
def test_what_cannot_be_compared_says_why(run: Evaluated | None, reason: str) -> None:
    made, _, _ = arms()
    base = ArmRuns("base", None, {} if run is None else dict.fromkeys(SEEDS, run))
    difference = arm_figures([base, made[1]])[1].total["reward"].difference
    assert difference is not None
    assert (difference.value, difference.interval, difference.p_corrected) == (None, None, None)
    assert reason in difference.reason


def test_a_figure_without_values_of_each_answer_keeps_its_mean() -> None:
    runs = {
        seed: Evaluated(evaluated(np.arange(4.0)).scores, {"diversity": "d"}, {TOTAL: {"diversity": value}})
        for seed, value in ((1, 0.5), (2, 0.7))
    }
    figure = arm_figures([ArmRuns("one", None, runs)])[0].total["diversity"]
    assert figure.value == pytest.approx(0.6)
    assert figure.interval is None
    assert "no interval" in figure.reason


def test_one_sample_has_no_interval() -> None:
    figure = arm_figures([ArmRuns("one", None, {1: evaluated(np.array([2.0]))})])[0].total["reward"]
    assert (figure.value, figure.interval, figure.n) == (2.0, None, 1)
