"""``celery -A workers.celery_app worker -P threads -Q gpu -c 1`` (one per device), or ``-Q cpu -c 2``."""

from __future__ import annotations

from typing import Any

from celery import signals

from app.logging import configure_logging
from app.queue import RUN_STAGE, get_celery
from app.settings import get_settings
from workers.reconciler import Reconciler
from workers.run_stage import run_stage, shutting_down

app = get_celery()
app.task(name=RUN_STAGE)(run_stage)


def _start(**_: Any) -> None:
    configure_logging(as_json=get_settings().log_json)
    Reconciler(get_settings(), shutting_down).start()


def _hand_back(**_: Any) -> None:
    shutting_down.set()


signals.worker_ready.connect(_start, weak=False)
signals.worker_shutting_down.connect(_hand_back, weak=False)
