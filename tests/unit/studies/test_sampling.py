"""The frozen sample: which prompts, in which order, under which hash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.studies.sampling import choose, freeze, manifest_sha256
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


def test_freeze_takes_common_prompts_and_pairs_their_responses(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"1": "x", "2": "x", "3": "y", "only a": "y"}, "from a")
    b = write(tmp_path / "b", {"3": "y", "2": "x", "1": "x", "only b": "x"}, "from b")
    pairs = freeze(a, b, per_subset=5, seed=7)
    assert {pair.sample_id for pair in pairs} == {"1", "2", "3"}
    assert [pair.subset for pair in pairs] == ["x", "x", "y"]
    for pair in pairs:
        assert pair.prompt == [{"role": "user", "content": f"ask {pair.sample_id}"}]
        assert (pair.response_a, pair.response_b) == (f"from a {pair.sample_id}", f"from b {pair.sample_id}")


def test_choice_does_not_depend_on_the_texts(tmp_path: Path) -> None:
    ids = {str(number): "x" for number in range(50)}
    one = freeze(write(tmp_path / "1", ids, "long " * 9), write(tmp_path / "2", ids, "b"), 5, seed=3)
    two = freeze(write(tmp_path / "3", ids, "short"), write(tmp_path / "4", ids, "other"), 5, seed=3)
    assert [pair.sample_id for pair in one] == [pair.sample_id for pair in two]


def test_manifest_hash_sees_every_change(tmp_path: Path) -> None:
    ids = {"1": "x", "2": "x"}
    a, b = write(tmp_path / "a", ids, "from a"), write(tmp_path / "b", ids, "from b")
    changed = write(tmp_path / "c", ids, "from c")
    hashes = {
        manifest_sha256(freeze(a, b, 2, seed=1), 2, 1),
        manifest_sha256(freeze(a, b, 2, seed=1), 2, 2),
        manifest_sha256(freeze(a, b, 1, seed=1), 1, 1),
        manifest_sha256(freeze(a, changed, 2, seed=1), 2, 1),
        manifest_sha256(freeze(b, a, 2, seed=1), 2, 1),
    }
    assert len(hashes) == 5
    assert manifest_sha256(freeze(a, b, 2, seed=1), 2, 1) in hashes


def test_a_nul_in_a_response_can_be_stored(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"1": "x"}, "nul \x00 here")
    [pair] = freeze(a, a, 1, seed=1)
    assert pair.response_a == "nul \ufffd here 1"


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"1": "x"}, "a")
    broken = tmp_path / "b"
    broken.write_text(a.read_text() + '{"sample_id": 3}\n')
    with pytest.raises(DataError, match="line 2"):
        freeze(a, broken, 1, seed=1)
