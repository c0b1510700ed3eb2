"""The application: the routes of the table, the OpenAPI text and its page, and what others mount; inside the shell.

`create_app` is a pure composition: it opens nothing and starts nothing. A request that no route takes gets a problem
document as every other mistake does.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.routing import BaseRoute, Router, WebSocketRoute
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from hub.api import (
    bounces,
    callbacks,
    dead_letters,
    definitions,
    devices,
    health,
    inbox,
    keys,
    log,
    preferences,
    publish,
    push,
    topics,
    unsubscribe,
    users,
)
from hub.api.docs import documentation_routes
from hub.api.parts import Parts
from hub.api.problems import not_found
from hub.api.routing import Endpoint, Route
from hub.api.shell import Shell
from hub.errors import Refused

TABLE: tuple[Route, ...] = (
    *publish.ROUTES,
    *inbox.ROUTES,
    *devices.ROUTES,
    *preferences.ROUTES,
    *push.ROUTES,
    *users.ROUTES,
    *topics.ROUTES,
    *definitions.ROUTES,
    *log.ROUTES,
    *dead_letters.ROUTES,
    *bounces.ROUTES,
    *unsubscribe.ROUTES,
    *keys.ROUTES,
    *callbacks.ROUTES,
    *health.ROUTES,
)
"""Every call of version 1 that is answered here."""


class Application(Starlette):
    """Starlette inside the shell, which catches all that fails: its own outermost layer would only repeat that."""

    def __init__(
        self, parts: Parts, direct: Mapping[str, ASGIApp], sockets: Mapping[str, ASGIApp], **options: Any
    ) -> None:
        super().__init__(**options)
        self._parts = parts
        self._direct = direct
        self._sockets = sockets

    def build_middleware_stack(self) -> ASGIApp:
        """The shell, Starlette's handling of what pages raise, the router."""
        handled = ExceptionMiddleware(self.router, handlers={HTTPException: _as_problem})
        return Shell(handled, self._parts, self._direct, self._sockets)


def create_app(
    hub: Parts, extra_routes: Sequence[BaseRoute] = (), lifespan: Lifespan[Starlette] | None = None
) -> Starlette:
    """The ASGI application of a node. `extra_routes` (live routes, pages) come after the table."""
    routes = api_routes(hub)
    live = [route for route in extra_routes if isinstance(route, StarletteRoute) and route.methods is None]
    direct = {route.path: route.app for route in [*routes, *live] if "{" not in route.path}
    sockets = {route.path: route.app for route in extra_routes if isinstance(route, WebSocketRoute)}
    app = Application(hub, direct, sockets, routes=[*routes, *extra_routes], lifespan=lifespan)
    app.router.redirect_slashes = False  # its redirects would trust the Host header
    app.router.default = _NotFound(app.router)
    return app


def api_routes(hub: Parts) -> list[StarletteRoute]:
    """One Starlette route per path of the table, in its order."""
    by_path: dict[str, list[Route]] = {}
    for route in [*TABLE, *documentation_routes(TABLE, hub.settings.public.url)]:
        by_path.setdefault(route.starlette_path, []).append(route)
    found: list[StarletteRoute] = []
    for path, routes in by_path.items():
        others, fixed = _shadowed(path, by_path)
        found.append(StarletteRoute(path, Endpoint(hub, [*routes, *others], fixed)))
    return found


def _shadowed(path: str, by_path: dict[str, list[Route]]) -> tuple[list[Route], dict[str, str]]:
    """The calls on a thing whose id happens to be the last word of `path` (a user called "batch")."""
    folder, _, word = path.rpartition("/")
    own = {route.method for route in by_path[path]}
    for template, routes in by_path.items():
        same_shape = template.startswith(folder + "/{") and template.count("/") == path.count("/")
        if same_shape and "{" not in word:
            others = [route for route in routes if route.method not in own]
            return others, {routes[0].parameters[-1]: word}
    return [], {}


async def _as_problem(_request: Request, error: Exception) -> NoReturn:
    """What pages and static files raise; the shell makes the document."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        raise not_found("This address")
    codes = {401: "unauthorized", 403: "forbidden", 405: "method_not_allowed", 413: "request_too_large"}
    code = codes.get(error.status_code, "malformed_request" if error.status_code < 500 else "internal_error")
    raise Refused(error.status_code, code, str(error.detail))


class _NotFound:
    """What no route takes; other kinds of connections are left to Starlette."""

    def __init__(self, router: Router) -> None:
        self._otherwise = router.not_found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._otherwise(scope, receive, send)
            return
        raise not_found("This address")
