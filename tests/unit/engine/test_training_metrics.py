"""Means of figures that only some samples have."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from deft_engine.events import EventWriter, read_events
from deft_engine.tokenizer import load_tokenizer
from deft_engine.training_data import RankedSample, TrainingBatch, TrainingData
from deft_engine.training_metrics import Recorder
from tests.unit.engine.stage_folders import make_samples

NAN = math.nan


def batch(samples: int) -> TrainingBatch:
    ranked = [RankedSample(sample, (0, 1)) for sample in make_samples(samples)]
    return TrainingData(ranked, load_tokenizer("builtin:tiny"), "hh", 128).batch(range(samples))


def test_a_mean_is_over_the_samples_that_have_the_figure(tmp_path: Path) -> None:
    with EventWriter(tmp_path / "events.jsonl") as events:
        recorder = Recorder(events, total_steps=8_000)  # a point every four steps
        recorder.begin_epoch(1)
        recorder.add(batch(3), {"loss": torch.tensor([1.0, 2.0, 6.0]), "x": torch.tensor([5.0, NAN, NAN])})
        recorder.step(5, grad_norm=1.0, learning_rate=0.1)
        state = json.loads(json.dumps(recorder.state()))
        resumed = Recorder(events, total_steps=8_000, state=state)
        resumed.add(
            batch(1), {"loss": torch.tensor([7.0]), "x": torch.tensor([8.0]), "y": torch.tensor([NAN])}
        )
        resumed.step(8, grad_norm=1.0, learning_rate=0.1)
        resumed.add(batch(1), {"loss": torch.tensor([0.0])})
        resumed.step(12, grad_norm=1.0, learning_rate=0.1)
    first, second = (
        event["values"]
        for _, event in read_events(tmp_path / "events.jsonl", 0)
        if event["type"] == "metrics"
    )
    assert (first["loss"], first["x"]) == (4.0, 6.5)
    assert "y" not in first
    assert "x" not in second
    assert resumed.last_epoch["x"] == 6.5
