"""Which samples of a dataset a stage works on. No torch here."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from deft_engine.types import Sample


def choose(total: int, samples: int | None, seed: int) -> Sequence[int]:
    """Positions of ``samples`` random samples of ``total``, ascending; the same for every model."""
    if samples is None or samples >= total:
        return range(total)
    return sorted(random.Random(seed).sample(range(total), samples))


@dataclass(frozen=True, slots=True)
class Selected:
    """The samples at some positions of others, which ascend."""

    samples: Iterable[Sample]
    positions: Sequence[int]

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Sample]:
        wanted = iter(self.positions)
        position = next(wanted, None)
        for index, sample in enumerate(self.samples):
            if index == position:
                yield sample
                position = next(wanted, None)
