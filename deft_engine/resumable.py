"""Work over many samples in windows: a window that is done is never computed again.

A window's result is a JSON file in the stage's ``work/``; JSON keeps every float64 exactly, and which samples
share a forward pass depends on the window alone, so an interrupted run ends with the same bytes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from deft_engine.data.tokenise import TokenisedSample
from deft_engine.durable import fsync
from deft_engine.types import Counted
from deft_engine.world import ALONE, World

WINDOW = 256
"""Samples that an interruption can cost at most."""

BATCH_TOKENS = 8_192
"""Tokens of a packed batch without gradients, unless one sample has more."""

REPORT_SECONDS = 2.0
"""At least so long between two reports of progress within a window."""

S = TypeVar("S")
T = TypeVar("T")


def windows(
    samples: Counted[S],
    work: Path,
    name: str,
    compute: Callable[[list[S], int], Sequence[T]],
    world: World = ALONE,
) -> Iterator[tuple[list[S], Sequence[T]]]:
    """Every ``WINDOW`` samples with their results, in order: from ``work`` or computed.

    Of several processes each computes every n-th window; when all are done, each goes through all results.

    Args:
        name: Tells apart the files of several loops of one stage.
        compute: Gives a JSON value per sample of a window that starts at a position among all samples; may
            raise ``Interrupted``.
    """

    def results_of(number: int, window: list[S]) -> Sequence[T]:
        path = work / f"{name}-{number:06d}.json"
        if path.exists():
            return json.loads(path.read_bytes())  # type: ignore[no-any-return]
        results = compute(window, number * WINDOW)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(results), encoding="utf-8")
        fsync(partial)
        partial.replace(path)
        return results

    if world.size > 1:
        for number, window in enumerate(_cut(samples)):
            if number % world.size == world.rank:
                results_of(number, window)
        world.barrier()
    for number, window in enumerate(_cut(samples)):
        yield window, results_of(number, window)


def _cut(samples: Counted[S]) -> Iterator[list[S]]:
    iterator = iter(samples)
    while window := list(islice(iterator, WINDOW)):
        yield window


def token_batches(samples: Sequence[TokenisedSample]) -> Iterator[list[int]]:
    """Indices of samples, the longest first, in batches of at most ``BATCH_TOKENS`` tokens."""
    by_length = sorted(range(len(samples)), key=lambda index: -samples[index].tokens)
    batch: list[int] = []
    tokens = 0
    for index in by_length:
        if batch and tokens + samples[index].tokens > BATCH_TOKENS:
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += samples[index].tokens
    if batch:
        yield batch


class Within:
    """How far a window is, told now and then: one of long samples takes minutes on a CPU."""

    def __init__(self, start: int, samples: int, parts: int, report: Callable[[int], None]) -> None:
        """Report in samples among all, of which the window has ``samples`` from ``start`` on.

        Args:
            parts: What the window's work consists of, by number.
        """
        self._start, self._samples, self._parts, self._report = start, samples, parts, report
        self._told = time.monotonic()

    def done(self, parts: int) -> None:
        """So many parts of the window are done."""
        if time.monotonic() - self._told >= REPORT_SECONDS:
            self._told = time.monotonic()
            self._report(self._start + self._samples * parts // self._parts)
