"""What an experiment's report shows beside its own table: the data, what people said, and MT-Bench."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deft_engine.report_radar import Radar, picture


@dataclass(frozen=True, slots=True)
class DataRow:
    """A subset of a data set that arms are trained on (Table 1); null is what no stage has told yet."""

    dataset: str
    subset: str
    training: int
    levels: Mapping[str, int] | None
    """Samples of the levels A, B and C, by the first arm that grades this data set."""
    evaluation: int | None
    """Prompts that the arms are evaluated on."""


@dataclass(frozen=True, slots=True)
class HumanRow:
    """How often people preferred an arm to another, in one aspect of a study (Fig. 3); shares of ``n``."""

    study: str
    arm: str
    other: str
    aspect: str
    n: int
    win: float
    tie: float
    lose: float


@dataclass(frozen=True, slots=True)
class Bench:
    """An arm's ratings on MT-Bench (Fig. 4), of one of its jobs."""

    arm: str
    seed: int | None
    judged: Mapping[str, Any]
    """``mt_bench.json``"""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """All of it."""

    data: Sequence[DataRow]
    people: Sequence[HumanRow]
    benches: Sequence[Bench]


def bench_categories(benches: Sequence[Bench]) -> list[str]:
    """The categories that any of them was rated in, by name."""
    return sorted({name for bench in benches for name in bench.judged["categories"]})


def bench_radar(benches: Sequence[Bench]) -> Radar | None:
    """A line for each of them; None where there are fewer than three categories."""
    categories = bench_categories(benches)
    lines = {
        f"{bench.arm}{'' if bench.seed is None else f', seed {bench.seed}'}": [
            bench.judged["categories"].get(name, {}).get("value") for name in categories
        ]
        for bench in benches
    }
    return picture(categories, lines)
