"""The pages: `/dashboard` for operators, `/preferences` for users and operators, and their static files.

Pages only show; everything that they change goes through the API, which checks session, origin and shape. The one
call of their own is `POST /dashboard/watch`: an operator gets a token of a few minutes to look into a user's inbox.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Final

import msgspec
import structlog
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from hub.api.auth import session_of
from hub.api.body import read_body
from hub.api.problems import as_refused
from hub.api.routing import check_media_type
from hub.decoding import decode_json
from hub.errors import ClarionError, Refused, TokenError
from hub.model.events import Id
from hub.model.vocabulary import is_id
from hub.wiring import Hub
from web.assets import Assets
from web.pages import Pages, worker_policy
from web.session import enter, is_guess, to_dashboard, visitor

STATIC: Final = Path(__file__).parent.parent / "static"
WATCH_SECONDS: Final = 300
WATCH_PATH: Final = "/dashboard/watch"
WORKER_PATH: Final = "/push-worker.js"
WORKER: Final = "importScripts('static/push.js');\n"

Handler = Callable[[Request], Awaitable[Response]]

_log = structlog.get_logger(__name__)


class WatchRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Whose inbox an operator wants to see."""

    user: Id


class Watch(Struct, frozen=True):
    """A token of that user, for a connection of the dashboard."""

    user: str
    token: str
    expires_in_seconds: int


_watch = msgspec.json.Decoder(WatchRequest)


def page_routes(hub: Hub) -> list[BaseRoute]:
    """The routes of the pages of one node."""
    assets = Assets(STATIC)
    site = Site(hub, Pages(assets.version, hub.settings.public))
    return [
        Route("/", _home),
        Route("/dashboard", site.shown("/dashboard", site.dashboard)),
        Route("/preferences", site.shown("/preferences", site.preferences)),
        Route(WATCH_PATH, site.watch, methods=["POST"]),
        Route(WORKER_PATH, site.push_worker),
        Route("/static/{path:path}", assets.serve),
    ]


async def _home(_request: Request) -> Response:
    return to_dashboard()


class Site:
    """What each page answers."""

    def __init__(self, hub: Hub, pages: Pages) -> None:
        self._hub = hub
        self._pages = pages

    def shown(self, route: str, handler: Handler) -> Handler:
        """A page whose errors are pages too."""

        @wraps(handler)
        async def answer(request: Request) -> Response:
            request.state.route = route
            try:
                return await handler(request)
            except ClarionError as error:
                refused = as_refused(error)
                if refused is None:
                    raise
                _log.warning("page_refused", route=route, code=refused.code, error=str(error))
                return self._pages.refusal(refused)

        return answer

    async def dashboard(self, request: Request) -> Response:
        """GET /dashboard: with `?link=` begin a session, else show the dashboard to operators."""
        identity = await visitor(self._hub.access, request)
        secret = request.query_params.get("link")
        if secret is not None:
            return await self._enter(request, secret, identity is not None and identity.operator)
        if identity is None:
            return self._pages.message(
                401, "You are not signed in", "The dashboard is for operators, who come in by a link.", "link"
            )
        if not identity.operator:
            return self._pages.message(
                403,
                "This page is for operators",
                f"You are signed in as the user {identity.user_id}.",
                "link",
            )
        return self._pages.render("dashboard.html", operator=identity.user_id)

    async def _enter(self, request: Request, secret: str, is_operator: bool) -> Response:
        if is_guess(request):  # a non-2xx answer also keeps browsers from showing it later
            return Response(None, 503, {"cache-control": "no-store"})
        try:
            return await enter(self._hub.access, secret)
        except TokenError:
            if is_operator:  # the link again, by the back button or a second click
                return to_dashboard()
            return self._pages.message(
                401,
                "This link does not work any more",
                "A link works once, for 15 minutes after it was printed. "
                "This one was used, is too old, or is not complete.",
                "link",
            )

    async def preferences(self, request: Request) -> Response:
        """GET /preferences: a user's own; for operators those of `?user=`."""
        identity = await visitor(self._hub.access, request)
        asked = request.query_params.get("user", "")
        if identity is None:
            return self._pages.message(
                401,
                "You are not signed in",
                "Your notification preferences open from a link in the app that notifies you.",
                "token",
            )
        if identity.operator:
            if not is_id(asked):
                return self._pages.render("choose.html", 422 if asked else 200, asked=asked[:200])
        elif asked not in ("", identity.user_id):
            return self._pages.message(
                403,
                "These are not your preferences",
                f"You are signed in as {identity.user_id} and can change your own.",
                "own",
            )
        return self._pages.render(
            "preferences.html",
            user=asked if identity.operator else identity.user_id,
            operator=identity.operator,
            default_timezone=self._hub.settings.timezone,
        )

    async def push_worker(self, request: Request) -> Response:
        """GET /push-worker.js: our own pages' service worker, at the top, so that all pages are in its scope."""
        request.state.route = WORKER_PATH
        headers = {
            "content-security-policy": worker_policy(self._hub.settings.public),
            "cache-control": "no-cache",
        }
        return Response(WORKER, 200, headers, "text/javascript; charset=utf-8")

    async def watch(self, request: Request) -> Response:
        """POST /dashboard/watch: a short-lived token of a user, for operators' own pages. Raises `ClarionError`."""
        request.state.route = WATCH_PATH
        hub, headers = self._hub, dict(request.scope["headers"])
        identity = await session_of(hub, "POST", headers)
        if not identity.operator:
            raise Refused(403, "forbidden", "Only operators can look into somebody's inbox.")
        hub.limiter.check(identity.user_id)
        check_media_type("json", headers)
        asked = decode_json(_watch, await read_body(request.receive, headers, 4_096, "request_too_large"))
        token = hub.access.tokens.issue(asked.user, WATCH_SECONDS)
        _log.info("inbox_watched", operator=identity.user_id, user=asked.user)
        body = msgspec.json.encode(Watch(asked.user, token, WATCH_SECONDS))
        return Response(body, 200, {"cache-control": "no-store"}, "application/json")
