"""Pages for researchers: login, the overview, a job, an experiment, a dataset. Scripts use the public API."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Cookie, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from app.auth import end_web_session, find_usable_key, reads_by_key, refuse_other_sites, start_web_session
from app.cookies import SESSION_COOKIE
from app.db.models import ApiKey, Experiment, Role, WebSession
from app.db.queries import find_dataset, find_job
from app.db.session import transaction
from app.errors import not_found
from app.keys import hash_secret
from app.settings import get_settings
from app.web.render import render

router = APIRouter(include_in_schema=False)

SessionCookie = Annotated[str | None, Cookie(alias=SESSION_COOKIE)]
_LOGIN_BYTES = 4096


@router.get("/login")
def login_page(next: str = "/") -> Response:
    """Where a key is typed in."""
    return render("login.html", next=_local(next), error="")


@router.post("/login")
async def login(request: Request) -> Response:
    """Exchange a key for a session cookie; only a hash of either is stored."""
    refuse_other_sites(request)
    body = (await request.body())[:_LOGIN_BYTES]
    fields = parse_qs(body.decode("utf-8", errors="replace"))
    key_text = fields.get("key", [""])[0].strip()
    target = _local(fields.get("next", ["/"])[0])
    secret = await run_in_threadpool(_start_session, key_text)
    if secret is None:
        error = "This key is unknown, expired or revoked, or it belongs to a rater (use the personal link)."
        return render("login.html", status=401, next=target, error=error)
    response = RedirectResponse(target, 303)
    response.set_cookie(
        SESSION_COOKIE,
        secret,
        max_age=int(get_settings().session_hours * 3600),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


@router.post("/logout")
def logout(request: Request, cookie: SessionCookie = None) -> Response:
    """End the session."""
    refuse_other_sites(request)
    if cookie is not None:
        with transaction() as session:
            end_web_session(session, cookie)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(SESSION_COOKIE)
    return response


@router.get("/")
def index(request: Request, cookie: SessionCookie = None) -> Response:
    """Jobs, datasets and studies."""
    return _for_reader(request, cookie) or render("index.html")


@router.get("/jobs/{job_id}/dashboard")
def dashboard(request: Request, job_id: str, cookie: SessionCookie = None) -> Response:
    """One job, live."""
    if (elsewhere := _for_reader(request, cookie)) is not None:
        return elsewhere
    with transaction() as session:
        job = find_job(session, job_id)
    if job is None:
        raise not_found("job", job_id)
    return render("dashboard.html", job_id=job.id, job_name=job.name)


@router.get("/experiments/{experiment_id}/view")
def experiment_view(request: Request, experiment_id: str, cookie: SessionCookie = None) -> Response:
    """One experiment: its arms, the table as it fills, curves, and two arms side by side."""
    if (elsewhere := _for_reader(request, cookie)) is not None:
        return elsewhere
    with transaction() as session:
        experiment = session.get(Experiment, experiment_id) if "\x00" not in experiment_id else None
    if experiment is None:
        raise not_found("experiment", experiment_id)
    return render("experiment.html", experiment_id=experiment.id, experiment_name=experiment.name)


@router.get("/datasets/{dataset_id}/view")
def dataset_view(request: Request, dataset_id: str, cookie: SessionCookie = None) -> Response:
    """One dataset: what was read, what was not, and samples."""
    if (elsewhere := _for_reader(request, cookie)) is not None:
        return elsewhere
    with transaction() as session:
        dataset = find_dataset(session, dataset_id)
    if dataset is None:
        raise not_found("dataset", dataset_id)
    return render("dataset.html", dataset_id=dataset.id, dataset_name=dataset.name)


def _start_session(key_text: str) -> str | None:
    with transaction() as session:
        key = find_usable_key(session, key_text)
        return None if key is None or key.role is Role.ANNOTATOR else start_web_session(session, key)


def _for_reader(request: Request, cookie: str | None) -> Response | None:
    """None for somebody who is logged in or sends a key; else the way to the login page."""
    if reads_by_key(request, Role.VIEWER):
        return None
    if cookie is not None:
        with transaction() as session:
            found = session.get(WebSession, hash_secret(cookie))
            key = session.get(ApiKey, found.key_id) if found else None
            if key is not None and key.role is not Role.ANNOTATOR:
                return None  # whether it has expired is the API's to say, at the first request
    return RedirectResponse(f"/login?next={quote(request.url.path)}", 303)


def _local(target: str) -> str:
    """Only paths of this service: a login must not lead elsewhere."""
    return target if target.startswith("/") and not target.startswith(("//", "/\\")) else "/"
