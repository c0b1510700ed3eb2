"""Who looks at a page, by the session cookie, and how an operator's session begins.

A page may be opened by a link from anywhere (the cookie is SameSite=Lax, and reading a page changes nothing); what
changes something goes through `hub.api.auth`, which also asks where the request comes from.
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from hub.access import Access
from hub.api.auth import cookie_of
from hub.errors import TokenError
from hub.live.seam import Identity

_GUESSES: Final = ("sec-purpose", "purpose", "x-purpose", "x-moz")


async def visitor(access: Access, request: Request) -> Identity | None:
    """The owner of the session; None without one that still counts. Raises `StoreUnavailable`."""
    session = cookie_of(dict(request.scope["headers"]))
    if session is None:
        return None
    try:
        return await access.authenticate_session(session)
    except TokenError:
        return None


def is_guess(request: Request) -> bool:
    """Whether nobody may look at the answer: HEAD, and what browsers load ahead of a click."""
    if request.method == "HEAD":
        return True
    said = [request.headers.get(name, "").lower() for name in _GUESSES]
    return any("prefetch" in one or "prerender" in one or "preview" in one for one in said)


async def enter(access: Access, secret: str) -> Response:
    """Redeem a one-time link, once, and begin the session. Raises `TokenError`, `StoreUnavailable`."""
    sessions = access.sessions
    session, seconds = sessions.open(await sessions.redeem_link(secret))
    return to_dashboard(sessions.cookie(session, seconds))


def to_dashboard(cookie: str | None = None) -> Response:
    """Go on without the secret in the address. The place is relative: the public address may have a path."""
    headers = {"location": "dashboard", "cache-control": "no-store", "referrer-policy": "no-referrer"}
    if cookie is not None:
        headers["set-cookie"] = cookie
    return Response(None, 303, headers)
