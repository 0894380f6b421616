"""The broker: a message carries a stage run's id, no more. It may be lost or doubled; the row decides."""

from __future__ import annotations

from functools import cache

import redis
import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from app.settings import get_settings

log = structlog.get_logger()

RUN_STAGE = "deft.run_stage"


@cache
def get_celery() -> Celery:
    """The Celery application, for the API (which sends) and the workers (which receive)."""
    celery = Celery("deft", broker=get_settings().redis_url)
    celery.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "retry_on_timeout": True,
            "max_retries": 0,  # a doorbell that cannot be rung is not waited for
        },
        task_publish_retry=False,
    )
    return celery


def ring(stage_run_id: str, queue: str) -> None:
    """Tell the workers of ``queue`` to look at a row; failure is logged, and the reconciler rings again."""
    try:
        get_celery().send_task(RUN_STAGE, args=[stage_run_id], queue=queue)
    except (OperationalError, OSError) as error:
        log.warning("doorbell_failed", stage_run_id=stage_run_id, error=str(error))


def waiting_messages(queue: str) -> int | None:
    """How many messages wait in a queue; None if the broker does not answer."""
    try:
        with redis.Redis.from_url(
            get_settings().redis_url, socket_timeout=5, socket_connect_timeout=2
        ) as broker:
            return int(broker.llen(queue))
    except (redis.RedisError, OSError) as error:
        log.warning("broker_unreachable", queue=queue, error=str(error))
        return None
