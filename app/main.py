"""The HTTP service: ``uvicorn --factory app.main:create_app``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from app.api import (
    annotators,
    artifacts,
    assignments,
    datasets,
    events,
    experiment_results,
    experiments,
    generations,
    jobs,
    keys,
    metrics,
    operations,
    studies,
    study_judges,
    study_results,
)
from app.db.session import get_engine
from app.errors import install_error_handlers
from app.logging import configure_logging
from app.openapi import describe
from app.request_log import RequestLog
from app.settings import get_settings
from app.uploads import remove_leftovers
from app.web import pages, static_files, study_pages
from app.web_security import BodyLimit, SecurityHeaders

_UPLOAD_STALLS_AFTER = 3600.0  # seconds without a byte

_ROUTERS = (
    datasets.router,
    generations.router,
    jobs.router,
    events.router,
    metrics.router,
    artifacts.router,
    assignments.router,
    keys.router,
    operations.router,
    experiments.router,
    experiment_results.router,
    studies.router,
    study_results.router,
    study_judges.router,
    annotators.router,
    static_files.router,
    study_pages.router,
    pages.router,
)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings = get_settings()
    configure_logging(as_json=settings.log_json)
    for folder in (settings.store_root, settings.uploads_root, settings.runs_root):
        folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(older_than=time.time() - _UPLOAD_STALLS_AFTER)
    yield
    get_engine().dispose()


def create_app() -> FastAPI:
    """The application, its routes and error answers."""
    app = FastAPI(
        title="DEFT",
        version=version("deft"),
        lifespan=_lifespan,
        docs_url=None,  # Swagger UI and ReDoc load from a CDN
        redoc_url=None,
        redirect_slashes=False,
    )
    for router in _ROUTERS:
        app.include_router(router)
    install_error_handlers(app)
    app.add_middleware(BodyLimit, unlimited={("POST", "/datasets"), ("POST", "/generations")})
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestLog)
    describe(app)
    return app
