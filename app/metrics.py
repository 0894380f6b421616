"""Figures for Prometheus: requests of this process, and what the database knows of jobs and stages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from starlette.types import Scope

from app.db.claims import WRITE_REFUSED
from app.db.models import LIVE_STAGES, Attempt, AuditEntry, Job, StageRun
from app.db.session import transaction

REGISTRY = CollectorRegistry()

_SECONDS = Histogram(
    "deft_http_request_seconds",
    "Time from a request to the end of its answer.",
    ("method", "route"),
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
_REQUESTS = Counter(
    "deft_http_requests", "Requests answered.", ("method", "route", "status"), registry=REGISTRY
)


def observe_request(scope: Scope, status: int, seconds: float) -> None:
    """Count a request under its route's template, so that ids make no series of their own."""
    route = getattr(scope.get("route"), "path", "none")
    _SECONDS.labels(scope["method"], route).observe(seconds)
    _REQUESTS.labels(scope["method"], route, str(status)).inc()


def render_metrics() -> bytes:
    """All figures in Prometheus' text format."""
    return generate_latest(REGISTRY)


class _DatabaseCollector:
    """Read when they are asked for; every API process reports the same."""

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        with transaction() as session:
            jobs = session.execute(sa.select(Job.status, sa.func.count()).group_by(Job.status)).all()
            stages = session.execute(
                sa.select(StageRun.stage, StageRun.queue, StageRun.status, sa.func.count())
                .where(StageRun.status.in_(LIVE_STAGES))
                .group_by(StageRun.stage, StageRun.queue, StageRun.status)
            ).all()
            attempts = session.execute(
                sa.select(Attempt.status, sa.func.count()).group_by(Attempt.status)
            ).all()
            refused = session.execute(
                sa.select(sa.func.count()).where(AuditEntry.action == WRITE_REFUSED)
            ).all()
        yield _family(GaugeMetricFamily, "deft_jobs", "Jobs by status.", ("status",), jobs)
        yield _family(
            GaugeMetricFamily,
            "deft_live_stage_runs",
            "Stage runs that are not finished.",
            ("stage", "queue", "status"),
            stages,
        )
        yield _family(
            CounterMetricFamily,
            "deft_attempts",
            "Claims of stage runs by how they ended; a lost one may write nothing any more (fenced).",
            ("status",),
            attempts,
        )
        yield _family(
            CounterMetricFamily,
            "deft_fenced_writes",
            "Workers whose write was refused, because their lease was gone.",
            (),
            refused,
        )

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: registering must not read the database."""
        return iter(())


def _family(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    documentation: str,
    labels: tuple[str, ...],
    rows: Iterable[tuple[Any, ...]],
) -> GaugeMetricFamily | CounterMetricFamily:
    family = kind(name, documentation, labels=labels)
    for row in rows:
        family.add_metric([str(value) for value in row[:-1]], row[-1])
    return family


REGISTRY.register(_DatabaseCollector())
