"""For operators: alive, ready, and figures for Prometheus. Open without a key: they name nothing."""

from __future__ import annotations

from typing import Literal

import redis
import sqlalchemy as sa
from fastapi import APIRouter, Response
from pydantic import BaseModel

from app.api.dependencies import problems
from app.db.session import get_engine
from app.errors import Problem
from app.metrics import render_metrics
from app.settings import get_settings

router = APIRouter(tags=["operations"])

_SECONDS_TO_ANSWER = 2.0


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


@router.get("/healthz", operation_id="healthz")
def healthz() -> Health:
    """The process is alive."""
    return Health()


@router.get("/readyz", operation_id="readyz", responses=problems())
def readyz() -> Health:
    """The database and the broker answer."""
    for name, check in (("database", _ask_database), ("broker", _ask_broker)):
        try:
            check()
        except (sa.exc.SQLAlchemyError, redis.RedisError, OSError) as error:
            raise Problem(
                503, f"{name}_unavailable", f"The {name} does not answer", f"{name}: {type(error).__name__}"
            ) from error
    return Health()


@router.get("/metrics", operation_id="prometheus_metrics", response_class=Response, responses=problems())
def prometheus_metrics() -> Response:
    """Figures in Prometheus' text format."""
    return Response(render_metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _ask_database() -> None:
    with get_engine().connect() as connection:
        connection.execute(sa.text(f"SET LOCAL statement_timeout = {int(1000 * _SECONDS_TO_ANSWER)}"))
        connection.execute(sa.text("SELECT 1"))


def _ask_broker() -> None:
    with redis.Redis.from_url(
        get_settings().redis_url,
        socket_timeout=_SECONDS_TO_ANSWER,
        socket_connect_timeout=_SECONDS_TO_ANSWER,
    ) as broker:
        broker.ping()
