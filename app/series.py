"""Metric series: read from the database in binary, thinned for a chart without losing a peak.

A series of a finished stage does not change, so it is kept in memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from app.db.models import Metric

_KEPT_POINTS = 8_000_000  # 24 bytes each
_KEEP_FROM = 2_000  # shorter series are read in no time

_EPOCH = np.datetime64("2000-01-01T00:00:00", "us")


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one name, by ascending step."""

    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    times: npt.NDArray[np.int64]
    """Microseconds since 2000-01-01 UTC."""

    def __len__(self) -> int:
        return len(self.steps)

    def between(self, first: int | None, last: int | None) -> Series:
        """The points of steps ``first`` to ``last``, both included."""
        start = 0 if first is None else int(np.searchsorted(self.steps, first, "left"))
        end = len(self) if last is None else int(np.searchsorted(self.steps, last, "right"))
        return self._at(slice(start, end))

    def thinned(self, max_points: int) -> Series:
        """At most ``max_points``: the first, the last, and of each bucket a minimum, a maximum and a NaN.

        Where that is too many for even one bucket, the series' minimum, maximum, first NaN, last and first
        point stay, as many of them in this order as there is room for; of one point the last.
        """
        if len(self) <= max_points:
            return self
        missing = np.isnan(self.values)
        buckets = (max_points - 2) // (3 if missing.any() else 2)
        if buckets < 1:
            return self._at(self._foremost(max_points))
        size = -(-len(self) // buckets)
        chosen = [np.array([0, len(self) - 1])]
        chosen.append(_extremes(np.where(missing, np.inf, self.values), size, np.argmin, np.inf))
        chosen.append(_extremes(np.where(missing, -np.inf, self.values), size, np.argmax, -np.inf))
        if missing.any():
            first_nan = _extremes(missing.astype(np.int8), size, np.argmax, 0)
            chosen.append(first_nan[missing[first_nan]])
        return self._at(np.unique(np.concatenate(chosen)))

    def points(self) -> list[tuple[int, float, str]]:
        """(step, value, time in RFC 3339)."""
        times = np.datetime_as_string(_EPOCH + self.times.astype("timedelta64[us]"), timezone="UTC")
        return list(zip(self.steps.tolist(), self.values.tolist(), times.tolist(), strict=True))

    def _foremost(self, max_points: int) -> npt.NDArray[np.int64]:
        missing = np.isnan(self.values)
        last = len(self) - 1
        if max_points == 1:
            return np.array([last])
        lowest = int(np.argmin(np.where(missing, np.inf, self.values)))
        highest = int(np.argmax(np.where(missing, -np.inf, self.values)))
        ranked = [lowest, highest, *np.flatnonzero(missing)[:1].tolist(), last, 0]
        return np.unique(np.array(ranked[:max_points], dtype=np.int64))

    def _at(self, where: slice | npt.NDArray[np.int64]) -> Series:
        return Series(self.steps[where], self.values[where], self.times[where])


def _extremes(values: npt.NDArray[Any], size: int, pick: Any, filler: float) -> npt.NDArray[np.int64]:
    """``[buckets]``: position of the picked value of each bucket of ``size`` points."""
    buckets = -(-len(values) // size)
    padded = np.full(buckets * size, filler, dtype=values.dtype)
    padded[: len(values)] = values
    within = pick(padded.reshape(buckets, size), axis=1)
    return np.asarray(within + np.arange(buckets) * size, dtype=np.int64)


def metric_names(session: Session, stage_run_ids: Sequence[str]) -> list[tuple[str, str]]:
    """(stage run id, name) of every series of these stage runs, found by skipping through the index."""
    first = sa.select(Metric.name).order_by(Metric.name).limit(1)
    runs = sa.func.unnest(sa.cast(stage_run_ids, ARRAY(sa.Text))).column_valued("run")
    of_run = first.where(Metric.stage_run_id == runs)
    names = sa.select(runs.label("run"), of_run.scalar_subquery().label("name")).cte("names", recursive=True)
    following = first.where(Metric.stage_run_id == names.c.run, Metric.name > names.c.name).correlate(names)
    names = names.union_all(
        sa.select(names.c.run, following.scalar_subquery()).where(names.c.name.is_not(None))
    )
    query = sa.select(names.c.run, names.c.name).where(names.c.name.is_not(None))
    return [(run, name) for run, name in session.execute(query)]


def load_series(session: Session, run_id: str, name: str, *, finished: bool) -> Series:
    """All points of a series; of a ``finished`` stage run none are added."""
    if not finished:
        return _read(session, run_id, name)
    last = session.scalar(sa.select(sa.func.max(Metric.step)).where(*_of(run_id, name)))
    if last is None:
        return _EMPTY
    kept = _finished.get(run_id, name)
    if kept is not None and int(kept.steps[-1]) == last:
        return kept
    series = _read(session, run_id, name)
    _finished.put(run_id, name, series)
    return series


def _of(run_id: str, name: str) -> tuple[sa.ColumnElement[bool], ...]:
    return Metric.stage_run_id == run_id, Metric.name == name


def _read(session: Session, run_id: str, name: str) -> Series:
    """All points as three byte strings of big-endian 8-byte numbers: a million rows need no parsing."""
    packed = sa.select(
        sa.func.string_agg(sa.func.int8send(Metric.step), b""),
        sa.func.string_agg(sa.func.float8send(Metric.value), b""),
        sa.func.string_agg(sa.func.timestamptz_send(Metric.time), b""),
    ).where(*_of(run_id, name))
    steps, values, times = (column or b"" for column in session.execute(packed).one())
    order = np.argsort(np.frombuffer(steps, ">i8"), kind="stable")
    return Series(
        np.frombuffer(steps, ">i8")[order].astype(np.int64),
        np.frombuffer(values, ">f8")[order].astype(np.float64),
        np.frombuffer(times, ">i8")[order].astype(np.int64),
    )


class _Kept:
    """Series of finished stages, the least recently used dropped first."""

    def __init__(self, max_points: int) -> None:
        self._max_points = max_points
        self._points = 0
        self._series: OrderedDict[tuple[str, str], Series] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, run_id: str, name: str) -> Series | None:
        with self._lock:
            series = self._series.get((run_id, name))
            if series is not None:
                self._series.move_to_end((run_id, name))
            return series

    def put(self, run_id: str, name: str, series: Series) -> None:
        if not _KEEP_FROM <= len(series) <= self._max_points:
            return
        with self._lock:
            replaced = self._series.pop((run_id, name), None)
            self._series[run_id, name] = series
            self._points += len(series) - (len(replaced) if replaced is not None else 0)
            while self._points > self._max_points:
                _, dropped = self._series.popitem(last=False)
                self._points -= len(dropped)


_finished = _Kept(_KEPT_POINTS)
_EMPTY = Series(np.empty(0, np.int64), np.empty(0, np.float64), np.empty(0, np.int64))
