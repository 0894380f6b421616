"""The frozen sample of a study: chosen by sample ids alone, before any text is read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from app.studies.design import GoldPair, StudyDesign, pairs_of
from deft_engine.canonical import canonical_json, sha256_hex
from deft_engine.errors import DataError


class _Identity(msgspec.Struct):
    """What the choice may see of a line of ``generations.jsonl``."""

    sample_id: str
    subset: str


class _Turn(msgspec.Struct):
    role: str
    content: str


class _Answer(msgspec.Struct):
    sample_id: str
    prompt: list[_Turn]
    response: str


_Line = TypeVar("_Line", _Identity, _Answer)


@dataclass(frozen=True, slots=True)
class Planned:
    """A prompt and the two systems, by position, whose responses to it are compared."""

    sample_id: str
    subset: str
    system_a: int
    system_b: int


@dataclass(frozen=True, slots=True)
class FrozenPair:
    """A prompt with two systems' responses, as raters will see them."""

    sample_id: str
    subset: str
    system_a: int
    system_b: int
    prompt: list[dict[str, str]]
    response_a: str
    response_b: str


def common_prompts(files: Sequence[Path]) -> dict[str, str]:
    """Sample id -> subset of the prompts that every ``generations.jsonl`` answers.

    Raises:
        DataError: a line is not a generation.
    """
    first, *others = (read_identities(path) for path in files)
    return {name: subset for name, subset in first.items() if all(name in other for other in others)}


def plan(files: Sequence[Path], per_subset: int, pairs_per_prompt: int, seed: int) -> list[Planned]:
    """Which prompts are judged on which systems; no text is read.

    Up to ``per_subset`` prompts of each subset, in the order of :func:`choose`, each on ``pairs_per_prompt``
    pairs of systems. Within a subset any two pairs of systems come equally often, to within one.

    Raises:
        DataError: a line is not a generation.
    """
    common = common_prompts(files)
    planned: list[Planned] = []
    dealt: Counter[str] = Counter()  # pairs of each subset so far
    turns: dict[str, list[tuple[int, int]]] = {}
    for sample_id in choose(common, per_subset, seed):
        subset = common[sample_id]
        if subset not in turns:
            turns[subset] = _turns(len(files), subset, seed)
        for _ in range(pairs_per_prompt):
            pair = turns[subset][dealt[subset] % len(turns[subset])]
            planned.append(Planned(sample_id, subset, *pair))
            dealt[subset] += 1
    return planned


def _turns(systems: int, subset: str, seed: int) -> list[tuple[int, int]]:
    """The pairs of systems in the order in which a subset's prompts take turns through them."""
    return sorted(
        pairs_of(range(systems)), key=lambda pair: sha256_hex(canonical_json([seed, subset, *pair]))
    )


def freeze(files: Sequence[Path], planned: Sequence[Planned]) -> list[FrozenPair]:
    """The planned pairs with their texts.

    Raises:
        DataError: a line is not a generation.
    """
    wanted = {pair.sample_id for pair in planned}
    answers = [_read_answers(path, wanted) for path in files]
    return [
        FrozenPair(
            **asdict(pair),
            prompt=[
                {"role": turn.role, "content": _storable(turn.content)}
                for turn in answers[pair.system_a][pair.sample_id].prompt
            ],
            response_a=_storable(answers[pair.system_a][pair.sample_id].response),
            response_b=_storable(answers[pair.system_b][pair.sample_id].response),
        )
        for pair in planned
    ]


def choose(subsets: Mapping[str, str], per_subset: int, seed: int) -> list[str]:
    """Sample ids by the order of a seeded hash, at most ``per_subset`` of each subset.

    The order depends on nothing but seed, subset and id, so anybody can verify the choice, and a smaller
    study of the same seed is a part of a larger one.
    """
    by_subset: dict[str, list[str]] = defaultdict(list)
    for sample_id, subset in subsets.items():
        by_subset[subset].append(sample_id)

    def rank(sample_id: str) -> str:
        return sha256_hex(canonical_json([seed, subsets[sample_id], sample_id]))

    return [
        sample_id
        for subset in sorted(by_subset)
        for sample_id in sorted(by_subset[subset], key=rank)[:per_subset]
    ]


def choose_tutorial(gold: Sequence[GoldPair], size: int, seed: int) -> list[bool]:
    """Of each gold pair, whether it is one of the ``size`` of the tutorial, by the order of a seeded hash."""
    order = sorted(
        range(len(gold)), key=lambda number: sha256_hex(canonical_json([seed, number, asdict(gold[number])]))
    )
    chosen = set(order[:size])
    return [number in chosen for number in range(len(gold))]


def manifest_sha256(design: StudyDesign, pairs: Sequence[FrozenPair]) -> str:
    """Hash of all that was frozen: design, schedule, gold, prompts and responses, in the study's order.

    The study's name and where its request named the jobs are no part of it.
    """
    manifest = {name: value for name, value in asdict(design).items() if name not in ("name", "places")}
    return sha256_hex(canonical_json({**manifest, "pairs": [asdict(pair) for pair in pairs]}))


def read_identities(path: Path) -> dict[str, str]:
    """Sample id -> subset of every line of ``generations.jsonl``; nothing else of it is decoded.

    Raises:
        DataError: a line is not a generation.
    """
    return {line.sample_id: line.subset for line in _lines(path, _Identity)}


def _read_answers(path: Path, wanted: Set[str]) -> dict[str, _Answer]:
    return {line.sample_id: line for line in _lines(path, _Answer) if line.sample_id in wanted}


def _lines(path: Path, form: type[_Line]) -> Iterator[_Line]:
    decoder = msgspec.json.Decoder(form)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise DataError(
                    f"generations.jsonl line {number}: {error}", hint="run the evaluation again"
                ) from error


def _storable(text: str) -> str:
    """The database holds no NUL, which a byte-level model can emit; it is shown as the replacement sign."""
    return text.replace("\x00", "\ufffd")
