"""Structured logs of every process of the service."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog


def configure_logging(*, as_json: bool) -> None:
    """Log to standard error: JSON lines for machines, else text."""
    renderer = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _StandardError())),
        cache_logger_on_first_use=False,
    )


class _StandardError:
    """Standard error, where a full disk or a closed pipe costs the line, not the request that writes it."""

    def write(self, text: str) -> None:
        """Write, or lose, a line."""
        with suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Hand on what was written, or lose it."""
        with suppress(OSError):
            sys.stderr.flush()
