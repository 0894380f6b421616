"""The figures of a training run: means over samples, totals, and their state for a checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from deft_engine.events import EventWriter
from deft_engine.world import ALONE, World

if TYPE_CHECKING:
    from torch import Tensor

    from deft_engine.training_data import TrainingBatch

_MOST_POINTS = 2000  # of a metric; a longer run reports the mean over a few steps


@dataclass(slots=True)
class _Means:
    """Means of named figures, weighted by samples. A figure need not be there every time."""

    sums: dict[str, float] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, total: float, weight: int) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + total
        self.weights[name] = self.weights.get(name, 0) + weight

    def values(self) -> dict[str, float]:
        return {name: total / self.weights[name] for name, total in self.sums.items()}


@dataclass(slots=True)
class _StepFigures:
    """What the micro-batches of one process and step add."""

    totals: list[tuple[str, float, int]] = field(default_factory=list)  # name, sum, samples
    truncated: int = 0
    samples: int = 0
    tokens: int = 0


@dataclass(slots=True)
class _Figures:
    """Everything that a resumed run continues from; JSON holds it without loss."""

    window: _Means = field(default_factory=_Means)  # since the last point that was reported
    window_truncated: int = 0
    epoch: int = 0
    epoch_means: _Means = field(default_factory=_Means)
    first: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    samples: int = 0
    tokens: int = 0
    truncated: int = 0
    seconds: float = 0.0

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> _Figures:
        means = {name: _Means(**state[name]) for name in ("window", "epoch_means")}
        return cls(**{**state, **means})


class Recorder:
    """Collects a run's figures batch by batch and reports them as events, step by step."""

    def __init__(
        self,
        events: EventWriter,
        total_steps: int,
        state: Mapping[str, Any] | None = None,
        world: World = ALONE,
    ) -> None:
        self._events = events
        self._world = world
        self._step_figures = _StepFigures()
        self._total_steps = total_steps
        self._every = max(1, total_steps // _MOST_POINTS)
        self._figures = _Figures.from_json(state) if state else _Figures()
        self._seconds_before = self._figures.seconds
        self._started = self._window_started = time.perf_counter()
        self._window_tokens = 0  # of this process: speed is not continued from a checkpoint

    def begin(self, samples: int, step: int) -> None:
        """Say what the run is, ``step`` of its steps being made already."""
        begun = f", going on after step {step}" if step else ""
        self._events.log(f"training on {samples} samples in {self._total_steps} steps{begun}")
        self._events.progress(step, self._total_steps)

    def begin_epoch(self, epoch: int) -> None:
        """Start the means of an epoch; going on with one after a resume changes nothing."""
        if epoch != self._figures.epoch:
            self._figures.epoch = epoch
            self._figures.epoch_means = _Means()

    def add(self, batch: TrainingBatch, metrics: Mapping[str, Tensor]) -> None:
        """Add a micro-batch; each metric has a value per sample, shape [batch], NaN where it has none."""
        if not batch.counts:
            return
        figures = self._step_figures
        for name, values in metrics.items():
            known = [value for value in values.detach().double().tolist() if not math.isnan(value)]
            if known:
                figures.totals.append((name, sum(known), len(known)))
        figures.truncated += sum(batch.ranked.truncated)
        figures.samples += batch.samples
        figures.tokens += batch.ranked.tokens

    def step(self, step: int, grad_norm: float, learning_rate: float) -> None:
        """End optimiser step ``step`` (the first is 1) of all processes; reports where a point is due."""
        figures = self._figures
        for part in self._world.gather(self._step_figures):
            self._take(part)
        self._step_figures = _StepFigures()
        figures.window.add("grad_norm", grad_norm, 1)
        now = time.perf_counter()
        figures.seconds = self._seconds_before + now - self._started
        if step % self._every and step not in (1, self._total_steps):
            return
        values = figures.window.values() | {
            "learning_rate": learning_rate,
            "truncated": float(figures.window_truncated),
        }
        figures.first = figures.first or values
        figures.last = values
        speed = self._window_tokens / max(now - self._window_started, 1e-9)
        self._events.metrics(step, {**values, "tokens_per_second": speed})
        self._events.progress(step, self._total_steps)
        figures.window = _Means()
        figures.window_truncated = 0
        self._window_tokens = 0
        self._window_started = now

    def validated(self, step: int, reward: float) -> None:
        """Report what the answers after an epoch's last step are worth."""
        self._events.metrics(step, {"validation/reward": reward})

    def _take(self, part: _StepFigures) -> None:
        figures = self._figures
        for name, total, weight in part.totals:
            figures.window.add(name, total, weight)
            figures.epoch_means.add(name, total, weight)
        figures.window_truncated += part.truncated
        figures.truncated += part.truncated
        figures.samples += part.samples
        figures.tokens += part.tokens
        self._window_tokens += part.tokens

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self._figures)

    @property
    def first(self) -> Mapping[str, float]:
        """The metrics of the first step."""
        return self._figures.first

    @property
    def last(self) -> Mapping[str, float]:
        """The metrics of the last step, or the mean over the last few of a long run."""
        return self._figures.last

    @property
    def last_epoch(self) -> Mapping[str, float]:
        """Means over the last epoch; each batch was measured before the update that it caused."""
        return self._figures.epoch_means.values()

    def result(self) -> dict[str, Any]:
        """The part of a stage's result that every training has."""
        figures = self._figures
        return {
            "steps": self._total_steps,
            "samples": figures.samples,
            "seconds": round(figures.seconds, 3),
            "tokens": figures.tokens,
            "truncated": figures.truncated,
            "final": dict(figures.last),
        }
