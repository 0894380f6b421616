"""Who is calling: an API key as Bearer token or a browser's session cookie, and what their role allows.

Raters have a cookie of their own: a browser can hold a researcher's session and a rater's side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import urlsplit

import sqlalchemy as sa
from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from sqlalchemy.orm import Session

from app.cookies import RATER_COOKIE, SESSION_COOKIE
from app.db.models import Annotator, ApiKey, Role, WebSession
from app.db.session import transaction
from app.errors import Problem, request_id_of
from app.keys import KEY_PATTERN, hash_secret, is_usable, new_secret
from app.settings import get_settings

_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_RANK = {Role.VIEWER: 1, Role.RESEARCHER: 2, Role.ADMIN: 3}
_USE_NOTED_EVERY = timedelta(minutes=1)

_bearer = HTTPBearer(auto_error=False, scheme_name="key", description="An API key: `deft_...`")
_session_cookie = APIKeyCookie(
    name=SESSION_COOKIE, auto_error=False, scheme_name="session", description="Set by logging in on the pages"
)
_rater_cookie = APIKeyCookie(
    name=RATER_COOKIE, auto_error=False, scheme_name="rater", description="Set by opening a personal link"
)
_Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
_SessionCookie = Annotated[str | None, Depends(_session_cookie)]
_RaterCookie = Annotated[str | None, Depends(_rater_cookie)]


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller."""

    key_id: str
    role: Role
    annotator_id: str | None
    study_id: str | None
    request_id: str
    credential: str = field(repr=False)  # the key's or cookie's text


@dataclass(frozen=True, slots=True)
class Shown:
    """What a caller shows to be let in, before anybody has looked it up."""

    credential: str = field(repr=False)
    is_cookie: bool
    request: Request


async def shown_by_caller(
    request: Request, bearer: _Bearer, session: _SessionCookie, rater: _RaterCookie
) -> Shown:
    """What the caller of an address that is not for raters shows; a dependency.

    A rater's cookie counts where there is no other, so that a rater is told no more than by their key.

    Raises:
        Problem: 401 without a key, 400 for a key in the address, 403 for another site's cookie.
    """
    return _shown(request, bearer, session or rater)


async def shown_by_rater(
    request: Request, bearer: _Bearer, session: _SessionCookie, rater: _RaterCookie
) -> Shown:
    """What the caller of a rater's address shows; a dependency. Raises as :func:`shown_by_caller`."""
    return _shown(request, bearer, rater or session)


def recognise(session: Session, shown: Shown) -> Principal:
    """The caller.

    Raises:
        Problem: 401 for a key that is not usable.
    """
    # Looked up by the hash of 256 random bits: how long a comparison takes tells nothing about any key.
    query = sa.select(
        ApiKey.id,
        ApiKey.role,
        ApiKey.revoked_at,
        ApiKey.last_used_at,
        is_usable(),
        Annotator.id,
        Annotator.study_id,
    ).outerjoin(Annotator, Annotator.key_id == ApiKey.id)
    if shown.is_cookie:
        query = query.join(WebSession, WebSession.key_id == ApiKey.id).where(_lives(shown.credential))
    else:
        query = query.where(ApiKey.hash == hash_secret(shown.credential))
    found = session.execute(query).one_or_none()
    if found is None:
        raise _unauthorized("the key is unknown", "check it, or ask an admin for a new one")
    key_id, role, revoked_at, last_used_at, usable, annotator_id, study_id = found
    if not usable:
        why = "has expired" if revoked_at is None else "was revoked"
        raise _unauthorized(f"the key {why}", "ask an admin for a new one")
    now = datetime.now(UTC)
    if last_used_at is None or now - last_used_at > _USE_NOTED_EVERY:
        session.execute(sa.update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=now))
        session.commit()  # at once: who revokes the key has locked the study, for which this request may wait
    shown.request.state.key_id = key_id
    return Principal(key_id, role, annotator_id, study_id, request_id_of(shown.request), shown.credential)


def refuse_below(lowest: Role, principal: Principal) -> None:
    """Let in who has at least this role (viewer < researcher < admin).

    An annotator gets 404; :func:`require_annotator` is for them.

    Raises:
        Problem: 403 or 404.
    """
    if principal.role is Role.ANNOTATOR:
        raise Problem(
            404, "not_found", "Not found", "there is nothing at this address for an annotator's key"
        )
    if _RANK[principal.role] < _RANK[lowest]:
        raise _forbidden(
            f"this needs the role {lowest}, the key has {principal.role}; ask an admin for a key"
        )


def require_annotator(session: Session, shown: Shown) -> Principal:
    """The caller, who must be an annotator, looked up in the request's own transaction.

    Raises:
        Problem: 401 or 403.
    """
    principal = recognise(session, shown)
    if principal.role is not Role.ANNOTATOR:
        raise _forbidden("this address is for annotators; open the annotator's personal link")
    return principal


def reads_by_key(request: Request, lowest: Role) -> bool:
    """Whether a page is asked for with a key as Bearer token, as a script does that has no cookie.

    Raises:
        Problem: 401, 403 or 404: the key is not usable, or not of this role.
    """
    scheme, token = get_authorization_scheme_param(request.headers.get("authorization"))
    if scheme.lower() != "bearer":
        return False
    sent = HTTPAuthorizationCredentials(scheme=scheme, credentials=token)
    shown = _shown(request, sent, None)
    with transaction() as own:
        refuse_below(lowest, recognise(own, shown))
    return True


def start_web_session(session: Session, key: ApiKey) -> str:
    """Log a key's owner in; returns the cookie's value."""
    secret = new_secret()
    expires_at = datetime.now(UTC) + timedelta(hours=get_settings().session_hours)
    session.execute(sa.delete(WebSession).where(WebSession.expires_at < sa.func.now()))
    session.add(WebSession(hash=hash_secret(secret), key_id=key.id, expires_at=expires_at))
    return secret


def end_web_session(session: Session, cookie: str) -> None:
    """Log out; an unknown cookie is no error."""
    session.execute(sa.delete(WebSession).where(WebSession.hash == hash_secret(cookie)))


def find_usable_key(session: Session, text: str) -> ApiKey | None:
    """The key with this text, unless it is unknown, revoked or expired."""
    return session.scalar(sa.select(ApiKey).where(ApiKey.hash == hash_secret(text), is_usable()))


def find_logged_in(session: Session, cookie: str) -> ApiKey | None:
    """The key behind a browser's session, unless the session has ended or the key is not usable any more."""
    return session.scalar(_key_behind(cookie).where(is_usable()))


def may_go_on(principal: Principal) -> bool:
    """Whether a caller who was let in still would be: for answers that last long."""
    with transaction() as session:
        key = find_usable_key(session, principal.credential) or find_logged_in(session, principal.credential)
        return key is not None


def refuse_other_sites(request: Request) -> None:
    """CSRF: a request that changes something and carries a cookie must come from our own pages.

    Raises:
        Problem: 403.
    """
    if request.method in _SAFE_METHODS:
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        own = site == "same-origin"
    else:
        own = origin is not None and urlsplit(origin).netloc == request.headers.get("host")
    if not own:
        raise Problem(
            403,
            "cross_site_request",
            "Refused: sent by another site",
            "a browser session may change things from DEFT's own pages alone; scripts send a Bearer token",
        )


def _shown(request: Request, bearer: HTTPAuthorizationCredentials | None, cookie: str | None) -> Shown:
    _refuse_key_in_address(request)
    if bearer is not None:
        return Shown(bearer.credentials, False, request)
    if cookie is not None:
        refuse_other_sites(request)
        return Shown(cookie, True, request)
    raise _unauthorized("no key was sent", "send the header Authorization: Bearer deft_...")


def _key_behind(cookie: str) -> sa.Select[ApiKey]:
    return sa.select(ApiKey).join(WebSession).where(_lives(cookie))


def _lives(cookie: str) -> sa.ColumnElement[bool]:
    return (WebSession.hash == hash_secret(cookie)) & (WebSession.expires_at > sa.func.now())


def _refuse_key_in_address(request: Request) -> None:
    if KEY_PATTERN.search(request.url.query):
        raise Problem(
            400,
            "key_in_address",
            "A key in the address",
            "addresses end up in logs and histories: revoke this key, and send the new one as Bearer token",
        )


def _unauthorized(found: str, advice: str) -> Problem:
    headers = {"WWW-Authenticate": "Bearer"}
    return Problem(401, "unauthorized", "A key is needed", f"{found}; {advice}", headers=headers)


def _forbidden(detail: str) -> Problem:
    return Problem(403, "forbidden", "Not allowed", detail)
