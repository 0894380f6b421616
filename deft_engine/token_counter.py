"""Counts of the tokens of some responses, as fast as the tokenizer gives them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, compress, islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

_BATCH = 4_096  # responses tokenised at a time


class TokenCounter:
    """Counts the tokens of the selected responses; a batch is tokenised while the one before it is counted.

    The tokenizer's own threads use all cores but for the ends of a batch, where counting finds its time.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, positive: Mask, negative: Mask) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True
        self._positive = positive
        self._negative = negative
        self.positive_counts = np.zeros(len(tokenizer), dtype=np.int64)
        self.negative_counts = np.zeros(len(tokenizer), dtype=np.int64)

    def count(self, texts: Iterable[str]) -> Iterator[int]:
        """Count all texts, in the order of the masks; yields how many are done, batch by batch."""
        remaining, started = iter(texts), 0
        under_way: deque[tuple[Future[list[Encoding]], slice]] = deque()
        with ThreadPoolExecutor(1) as tokenizing:
            while batch := list(islice(remaining, _BATCH)):
                place = slice(started, started + len(batch))
                chosen = [batch[i] for i in self._selected(place).nonzero()[0]]
                under_way.append((tokenizing.submit(self._encode, chosen), place))
                started = place.stop
                if len(under_way) == 2:
                    yield self._add(*under_way.popleft())
            if under_way:
                yield self._add(*under_way.popleft())

    def _selected(self, place: slice) -> Mask:
        return self._positive[place] | self._negative[place]

    def _encode(self, texts: list[str]) -> list[Encoding]:
        encoded: list[Encoding] = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return encoded

    def _add(self, encoded: Future[list[Encoding]], place: slice) -> int:
        ids = [encoding.ids for encoding in encoded.result()]
        selected = self._selected(place)
        self.positive_counts += self._counted(ids, self._positive[place][selected])
        self.negative_counts += self._counted(ids, self._negative[place][selected])
        return int(place.stop)

    def _counted(self, ids: Sequence[Sequence[int]], which: Mask) -> Counts:
        tokens = np.fromiter(chain.from_iterable(compress(ids, which)), dtype=np.int64)
        return np.bincount(tokens, minlength=len(self.positive_counts))
