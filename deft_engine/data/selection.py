"""Which samples of a dataset a stage works on. No torch here."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

from deft_engine.types import Sample


def choose(total: int, samples: int | None, seed: int) -> Sequence[int]:
    """Positions of ``samples`` random samples of ``total``, ascending; the same for every model."""
    if samples is None or samples >= total:
        return range(total)
    return sorted(random.Random(seed).sample(range(total), samples))


def pick(samples: Iterable[Sample], chosen: Sequence[int]) -> Iterator[Sample]:
    """The samples at these positions."""
    wanted = set(chosen)
    return (sample for index, sample in enumerate(samples) if index in wanted)
