"""The frozen sample of a study: chosen by sample ids alone, before any text is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

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
class FrozenPair:
    """A prompt with both systems' responses, as raters will see them."""

    sample_id: str
    subset: str
    prompt: list[dict[str, str]]
    response_a: str
    response_b: str


def freeze(a: Path, b: Path, per_subset: int, seed: int) -> list[FrozenPair]:
    """Up to ``per_subset`` pairs of each subset from the prompts that both ``generations.jsonl`` answer.

    The pairs come by subset, in the order of :func:`choose`.

    Raises:
        DataError: a line is not a generation.
    """
    subsets_a, subsets_b = read_identities(a), read_identities(b)
    common = {sample_id: subset for sample_id, subset in subsets_a.items() if sample_id in subsets_b}
    chosen = choose(common, per_subset, seed)
    answers_a, answers_b = _read_answers(a, set(chosen)), _read_answers(b, set(chosen))
    return [
        FrozenPair(
            sample_id=sample_id,
            subset=common[sample_id],
            prompt=[
                {"role": turn.role, "content": _storable(turn.content)}
                for turn in answers_a[sample_id].prompt
            ],
            response_a=_storable(answers_a[sample_id].response),
            response_b=_storable(answers_b[sample_id].response),
        )
        for sample_id in chosen
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


def manifest_sha256(pairs: Sequence[FrozenPair], per_subset: int, seed: int) -> str:
    """Hash of all that was frozen: seed, size, ids, prompts and responses, in the study's order."""
    manifest = {"seed": seed, "per_subset": per_subset, "pairs": [asdict(pair) for pair in pairs]}
    return sha256_hex(canonical_json(manifest))


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
