"""The frozen sample: which prompts, in which order, under which hash."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.studies.design import GoldPair, StudyDesign
from app.studies.sampling import FrozenPair, choose, choose_tutorial, freeze, manifest_sha256, plan
from deft_engine.errors import DataError


def write(path: Path, ids: dict[str, str], text: str) -> Path:
    lines = [
        json.dumps(
            {
                "sample_id": sample_id,
                "subset": subset,
                "prompt": [{"role": "user", "content": f"ask {sample_id}"}],
                "response": f"{text} {sample_id}",
                "reference": "ref",
            }
        )
        for sample_id, subset in ids.items()
    ]
    path.write_text("".join(line + "\n" for line in lines))
    return path


@given(
    subsets=st.dictionaries(st.text(min_size=1, max_size=5), st.sampled_from(["x", "y"]), max_size=40),
    per_subset=st.integers(1, 10),
    seed=st.integers(0, 2**32 - 1),
)
def test_choice_is_complete_stable_and_nested(subsets: dict[str, str], per_subset: int, seed: int) -> None:
    chosen = choose(subsets, per_subset, seed)
    assert len(chosen) == len(set(chosen))
    for subset in ("x", "y"):
        members = [name for name in subsets if subsets[name] == subset]
        taken = [name for name in chosen if subsets[name] == subset]
        assert len(taken) == min(per_subset, len(members))
    assert choose(dict(reversed(subsets.items())), per_subset, seed) == chosen
    assert set(chosen) <= set(choose(subsets, per_subset + 1, seed))


def test_another_seed_chooses_otherwise() -> None:
    subsets = {str(number): "x" for number in range(100)}
    assert set(choose(subsets, 10, 1)) != set(choose(subsets, 10, 2))


def test_every_prompt_is_chosen_equally_often() -> None:
    subsets = {str(number): "x" for number in range(10)}
    counts = dict.fromkeys(subsets, 0)
    for seed in range(2000):
        for name in choose(subsets, 3, seed):
            counts[name] += 1
    # 600 expected, standard deviation 20.5; five of those on either side
    assert all(500 < count < 700 for count in counts.values()), counts


def frozen(files: list[Path], per_subset: int, seed: int, pairs_per_prompt: int = 1) -> list[FrozenPair]:
    return freeze(files, plan(files, per_subset, pairs_per_prompt, seed))


def test_freeze_takes_common_prompts_and_pairs_their_responses(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"1": "x", "2": "x", "3": "y", "only a": "y"}, "from a")
    b = write(tmp_path / "b", {"3": "y", "2": "x", "1": "x", "only b": "x"}, "from b")
    pairs = frozen([a, b], per_subset=5, seed=7)
    assert {pair.sample_id for pair in pairs} == {"1", "2", "3"}
    assert [pair.subset for pair in pairs] == ["x", "x", "y"]
    for pair in pairs:
        assert (pair.system_a, pair.system_b) == (0, 1)
        assert pair.prompt == [{"role": "user", "content": f"ask {pair.sample_id}"}]
        assert (pair.response_a, pair.response_b) == (f"from a {pair.sample_id}", f"from b {pair.sample_id}")


def test_choice_does_not_depend_on_the_texts(tmp_path: Path) -> None:
    ids = {str(number): "x" for number in range(50)}
    one = plan([write(tmp_path / "1", ids, "long " * 9), write(tmp_path / "2", ids, "b")], 5, 1, seed=3)
    two = plan([write(tmp_path / "3", ids, "short"), write(tmp_path / "4", ids, "other")], 5, 1, seed=3)
    assert one == two


@pytest.mark.parametrize(("systems", "pairs_per_prompt"), [(2, 1), (3, 1), (3, 2), (5, 3), (12, 1), (4, 6)])
def test_every_two_systems_meet_equally_often_in_each_subset(
    tmp_path: Path, systems: int, pairs_per_prompt: int
) -> None:
    ids = {f"{subset}{number}": subset for subset, size in (("x", 100), ("y", 37)) for number in range(size)}
    files = [write(tmp_path / str(number), ids, f"from {number}") for number in range(systems)]
    planned = plan(files, 1000, pairs_per_prompt, seed=5)
    assert len(set(planned)) == len(planned) == 137 * pairs_per_prompt
    every_two = list(combinations(range(systems), 2))
    for subset in "xy":
        of_subset = [pair for pair in planned if pair.subset == subset]
        met = Counter((pair.system_a, pair.system_b) for pair in of_subset)
        counts = [met[pair] for pair in every_two]
        assert sum(counts) == len(of_subset)
        assert max(counts) - min(counts) <= 1
    for pair in freeze(files, planned):
        assert pair.response_a == f"from {pair.system_a} {pair.sample_id}"
        assert pair.response_b == f"from {pair.system_b} {pair.sample_id}"
    assert set(plan(files, 20, pairs_per_prompt, seed=5)) <= set(planned)
    if systems > 2 and len(every_two) > pairs_per_prompt:
        assert plan(files, 1000, pairs_per_prompt, seed=6) != planned


DESIGN = StudyDesign(
    name="n", systems=("job_a", "job_b"), places=("/a", "/b"), per_subset=2, pairs_per_prompt=1,
    protocol="rigorous", raters_per_pair=2, repeats=0.1, gold_share=0.1, tutorial=1, criteria="c", seed=1,
    gold=(GoldPair([{"role": "user", "content": "2 + 2?"}], "4", "5"),),
)  # fmt: skip


def test_manifest_hash_sees_every_change(tmp_path: Path) -> None:
    ids = {"1": "x", "2": "x"}
    a, b = write(tmp_path / "a", ids, "from a"), write(tmp_path / "b", ids, "from b")
    changed = write(tmp_path / "c", ids, "from c")
    pairs = frozen([a, b], 2, seed=1)
    other_gold = (GoldPair(DESIGN.gold[0].prompt, "4", "3"),)
    changes: list[dict[str, Any]] = [
        {"systems": ("job_a", "job_c")}, {"per_subset": 1}, {"pairs_per_prompt": 2}, {"protocol": "paper"},
        {"raters_per_pair": 3}, {"repeats": 0.2}, {"gold": other_gold}, {"gold_share": 0.2}, {"tutorial": 0},
        {"criteria": "d"}, {"seed": 2},
    ]  # fmt: skip
    hashes = [manifest_sha256(replace(DESIGN, **change), pairs) for change in changes]
    hashes += [manifest_sha256(DESIGN, frozen(files, 2, seed=1)) for files in ([a, b], [a, changed], [b, a])]
    schedule = [replace(pair, system_b=2) for pair in pairs]
    hashes += [manifest_sha256(DESIGN, schedule), manifest_sha256(DESIGN, pairs[::-1])]
    assert len(set(hashes)) == len(hashes)
    renamed = replace(DESIGN, name="m", places=("/systems/0", "/systems/1"))
    assert manifest_sha256(renamed, pairs) == manifest_sha256(DESIGN, pairs)
    assert manifest_sha256(DESIGN, frozen([a, b], 2, seed=1)) in hashes


def test_tutorial_is_chosen_by_the_seed() -> None:
    gold = [GoldPair([{"role": "user", "content": str(number)}], "y", "n") for number in range(20)]
    chosen = {tuple(choose_tutorial(gold, 5, seed)) for seed in range(10)}
    assert {sum(one) for one in chosen} == {5}
    assert len(chosen) == 10
    assert choose_tutorial(gold, 5, 3) == choose_tutorial(gold, 5, 3)


def test_a_nul_in_a_response_can_be_stored(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"1": "x"}, "nul \x00 here")
    [pair] = frozen([a, a], 1, seed=1)
    assert pair.response_a == "nul \ufffd here 1"


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"1": "x"}, "a")
    broken = tmp_path / "b"
    broken.write_text(a.read_text() + '{"sample_id": 3}\n')
    with pytest.raises(DataError, match="line 2"):
        plan([a, broken], 1, 1, seed=1)
