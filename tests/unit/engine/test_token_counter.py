"""Counting in batches that overlap gives what counting text by text gives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from deft_engine import token_counter
from deft_engine.token_counter import TokenCounter
from deft_engine.tokenizer import load_tokenizer

TEXTS = [f"text {number} " * (number % 4) + "end" for number in range(11)] + ["<|endoftext|>", ""]


@pytest.mark.parametrize("batch", [1, 4, 13, 100])
def test_counts_equal_a_count_text_by_text(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_counter, "_BATCH", batch)
    generator = np.random.default_rng(batch)
    positive, negative = generator.random((2, len(TEXTS))) < 0.5
    positive[:4] = negative[:4] = False  # a batch without any selected response
    counter = TokenCounter(load_tokenizer("builtin:tiny"), positive, negative)

    done = list(counter.count(TEXTS))

    assert done == [*range(batch, len(TEXTS), batch), len(TEXTS)]
    tokenizer = load_tokenizer("builtin:tiny")
    for mask, counts in ((positive, counter.positive_counts), (negative, counter.negative_counts)):
        expected = np.zeros(len(tokenizer), dtype=np.int64)
        for text, counted in zip(TEXTS, mask, strict=True):
            for token in tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True):
                expected[token] += counted
        np.testing.assert_array_equal(counts, expected)


def test_a_failure_of_the_texts_comes_out_of_it() -> None:
    def broken() -> Iterator[str]:
        yield "a"
        raise OSError("the file ended")

    everything = np.ones(2, dtype=bool)
    with pytest.raises(OSError, match="the file ended"):
        list(TokenCounter(load_tokenizer("builtin:tiny"), everything, everything).count(broken()))
