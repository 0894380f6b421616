"""Samples on disk, over several row groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from deft_engine.data import samples as module
from deft_engine.data.samples import read_index, read_response_texts, read_samples, write_samples
from deft_engine.types import Message, Response, Sample


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, list[Sample]]:
    """Seven samples of 2 to 4 responses in row groups of three."""
    monkeypatch.setattr(module, "ROW_GROUP", 3)
    samples = [
        Sample(
            f"s{number}",
            "odd" if number % 2 else "",
            (Message("user", f"question {number}"),),
            tuple(Response(f"answer {number}.{rank} Größe", rank / 2) for rank in range(2 + number % 3)),
            line=number + 1,
        )
        for number in range(7)
    ]
    write_samples(tmp_path / "samples.parquet", samples)
    return tmp_path / "samples.parquet", samples


@pytest.mark.parametrize("start", [0, 2, 3, 6, 7])
def test_samples_come_back_from_any_place_on(written: tuple[Path, list[Sample]], start: int) -> None:
    path, samples = written
    assert list(read_samples(path, start)) == samples[start:]


def test_texts_and_index_are_those_of_the_samples(written: tuple[Path, list[Sample]]) -> None:
    path, samples = written
    index = read_index(path)
    texts = list(read_response_texts(path))

    assert texts == [response.text for sample in samples for response in sample.responses]
    assert index.ids == [sample.id for sample in samples]
    assert index.subsets == [sample.subset for sample in samples]
    assert [texts[start] for start in index.offsets[:-1]] == [sample.chosen.text for sample in samples]
    assert index.offsets[-1] == len(texts)
