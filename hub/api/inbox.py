"""A user's own inbox, profile and session."""

import msgspec
from msgspec.structs import asdict

from hub.api.auth import bearer_of
from hub.api.models import InboxPage, MarkCounts, Me, MePatch, SessionOpened
from hub.api.problems import unauthorized
from hub.api.routing import Call, Reply, Route
from hub.inbox import InboxParameters, MarkRequest
from hub.model.notifications import rfc3339
from hub.model.users import Profile


async def page_of(call: Call, user_id: str) -> Reply:
    """A page of anybody's inbox, after authorisation."""
    return Reply(await call.parts.inbox.page_of(user_id, call.query_as(InboxParameters)))


async def notifications(call: Call) -> Reply:
    """GET /v1/me/notifications."""
    return await page_of(call, call.user_id)


async def marks(call: Call) -> Reply:
    """POST /v1/me/notifications/marks."""
    return Reply(await call.parts.inbox.mark(call.user_id, call.body_as(MarkRequest)))


async def me(call: Call) -> Reply:
    """GET /v1/me."""
    return Reply(_shown((await call.parts.people.user(call.user_id)).profile))


async def patch_me(call: Call) -> Reply:
    """PATCH /v1/me."""
    call.body_as(MePatch)
    patch = msgspec.json.decode(call.raw)
    return Reply(_shown(await call.parts.people.patch_profile(call.user_id, patch, create=True)))


def _shown(profile: Profile) -> Me:
    fields = asdict(profile)
    return Me(**{name: fields[name] for name in Me.__struct_fields__})


async def open_session(call: Call) -> Reply:
    """POST /v1/me/session: only a token opens one, so a session cannot prolong itself."""
    if bearer_of(call.headers) is None:
        raise unauthorized()
    sessions = call.parts.access.sessions
    session, seconds = sessions.open(call.identity)
    expires_at = rfc3339(call.parts.clock.now_us() + seconds * 1_000_000)
    cookie = (b"set-cookie", sessions.cookie(session, seconds).encode())
    return Reply(SessionOpened(call.user_id, expires_at), headers=(cookie,))


async def end_session(call: Call) -> Reply:
    """DELETE /v1/me/session."""
    return Reply(status=204, headers=((b"set-cookie", call.parts.access.sessions.end_cookie().encode()),))


ROUTES = [
    Route("GET", "/v1/me", me, ("user",), "Who I am here", Me),
    Route(
        "PATCH",
        "/v1/me",
        patch_me,
        ("user",),
        "Change my locale or time zone",
        Me,
        body=MePatch,
        body_kind="merge",
    ),
    Route(
        "GET",
        "/v1/me/notifications",
        notifications,
        ("user",),
        "My inbox, newest first, with counts",
        InboxPage,
        query=InboxParameters,
        codes=("invalid_cursor",),
    ),
    Route(
        "POST",
        "/v1/me/notifications/marks",
        marks,
        ("user",),
        "Mark notifications as seen, read, unread, archived",
        MarkCounts,
        body=MarkRequest,
        body_kind="json",
    ),
    Route(
        "POST",
        "/v1/me/session",
        open_session,
        ("user",),
        "Turn a token into the session cookie of our own pages",
        SessionOpened,
    ),
    Route("DELETE", "/v1/me/session", end_session, ("user",), "End the session of this browser", None, 204),
]
