"""A job's events, as a list or as a stream of server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from app.api.dependencies import Limit, ViewerBeforehand, problems
from app.api.job_views import EventView
from app.api.lookup import JobId, job_or_404
from app.api.schemas import Page
from app.auth import Principal, may_go_on
from app.db.models import TERMINAL_JOBS
from app.db.queries import events_after, job_status
from app.db.session import transaction
from app.errors import not_found

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])

POLL_SECONDS = 0.4
HEARTBEAT_SECONDS = 10.0

_BATCH = 500
_LAST = 2**63 - 1

After = Annotated[int, Query(ge=0, le=_LAST, description="Events with a higher number only.")]


@router.get(
    "/events",
    operation_id="job_events",
    response_model=Page[EventView],
    responses={
        **problems(),
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        204: {"description": "The job has ended and nothing follows `Last-Event-ID`; do not connect again"},
    },
)
async def job_events(
    job_id: JobId,
    request: Request,
    caller: ViewerBeforehand,
    after: After = 0,
    limit: Limit = 20,
    last_event_id: Annotated[str | None, Header(description="Where a stream goes on.")] = None,
) -> Response:
    """What happened, in order: a list, or with `Accept: text/event-stream` a stream up to the job's end."""
    if "text/event-stream" not in request.headers.get("accept", "").lower():
        return await run_in_threadpool(_list, job_id, after, limit)
    if last_event_id is not None and last_event_id.isascii() and last_event_id.isdecimal():
        after = min(int(last_event_id[:20]), _LAST)
    events, ended = await run_in_threadpool(_next, job_id, after)
    if ended and not events:
        return Response(status_code=204)
    return EventSourceResponse(_stream(job_id, after, caller), headers={"X-Accel-Buffering": "no"})


def _list(job_id: str, after: int, limit: int) -> Response:
    with transaction() as session:
        job_or_404(session, job_id)
        events = events_after(session, job_id, after, limit + 1)
        page = Page[EventView](
            data=[EventView.model_validate(e) for e in events[:limit]], has_more=len(events) > limit
        )
    return JSONResponse(page.model_dump(mode="json"))


def _next(job_id: str, after: int) -> tuple[list[EventView], bool]:
    """The next events, and whether the job had ended before they were read: then nothing follows them."""
    with transaction() as session:
        status = job_status(session, job_id) if "\x00" not in job_id else None
        if status is None:
            raise not_found("job", job_id)
        ended = status in TERMINAL_JOBS
        events = [EventView.model_validate(event) for event in events_after(session, job_id, after, _BATCH)]
        return events, ended and len(events) < _BATCH


async def _stream(job_id: str, after: int, caller: Principal) -> AsyncIterator[bytes]:
    """Events until the job has ended and all were sent, or the caller's access has ended.

    A comment now and then keeps the connection open.
    """
    checked = time.monotonic()
    while True:
        events, ended = await run_in_threadpool(_next, job_id, after)
        for event in events:
            yield format_sse_event(event=event.type, data_str=event.model_dump_json(), id=str(event.seq))
            after = event.seq
        if ended:
            return
        if time.monotonic() - checked >= HEARTBEAT_SECONDS:
            if not await run_in_threadpool(may_go_on, caller):
                return
            checked = time.monotonic()
            yield KEEPALIVE_COMMENT
        if not events:
            await asyncio.sleep(POLL_SECONDS)
