"""The outermost layer of every HTTP request: request id, security headers, CORS, problems, counting.

Nothing that goes wrong further in reaches a client as anything but a problem document; what nobody expected is
logged here, once, with its request id. Live connections that take their transport pass through untouched.
"""

import re
from collections.abc import Mapping
from random import randbytes
from time import perf_counter
from typing import Final

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from hub.api.answer import Answer, Header
from hub.api.body import BodyRefused, ClientGone, discard_body
from hub.api.parts import Parts
from hub.api.problems import as_refused, problem_body, problem_headers
from hub.errors import Refused
from hub.logs import current_request_id

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_log = structlog.get_logger(__name__)

CORS_PREFIX: Final = ("/v1/me", "/v1/push/")
CORS_PREFLIGHT: Final = (
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
    (b"access-control-allow-headers", b"Authorization, Content-Type, If-Match, Last-Event-ID, X-Request-Id"),
    (b"access-control-max-age", b"600"),
)
CORS_EXPOSE: Final = (b"access-control-expose-headers", b"ETag, Retry-After, X-Request-Id")


class Shell:
    """Wraps the application. WebSockets and the lifespan go straight through.

    `direct` and `sockets` are applications for one address each: no router has to look for them.
    """

    def __init__(
        self, app: ASGIApp, parts: Parts, direct: Mapping[str, ASGIApp], sockets: Mapping[str, ASGIApp]
    ) -> None:
        self._app = app
        self._parts = parts
        self._direct = direct
        self._sockets = sockets
        self._base_url = parts.settings.public.url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            found = self._sockets.get(scope["path"]) if scope["type"] == "websocket" else None
            await (found or self._app)(scope, receive, send)
            return
        headers = dict(scope["headers"])  # of repeated ones the last counts
        path = scope["path"]
        request_id = request_id_of(headers.get(b"x-request-id"))
        cors = self._cors(headers) if path.startswith(CORS_PREFIX) else ()
        answer = Answer(scope, send, request_id, cors)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["headers"] = headers
        state["answer"] = answer
        started = perf_counter()
        outside = current_request_id.set(request_id)
        try:
            if cors and _is_preflight(scope, headers):
                await answer.send_all(204, list(CORS_PREFLIGHT if len(cors) > 1 else ()), b"")
            else:
                await self._direct.get(path, self._app)(scope, receive, answer.send)
        except ClientGone:
            pass
        except Exception as error:  # noqa: BLE001  (the last handler: a caller gets a document, never a traceback)
            await self._fail(answer, scope, receive, error)
        finally:
            current_request_id.reset(outside)
            del state["answer"]  # it knows the scope: only the garbage collector would find them
        if answer.status:
            route = str(state.get("route", "other"))
            self._parts.metrics.http.request(scope["method"], route, answer.status, perf_counter() - started)

    async def _fail(self, answer: Answer, scope: Scope, receive: Receive, error: Exception) -> None:
        refused = as_refused(error)
        if refused is None:
            _log.exception("request_failed", method=scope["method"], route=scope["state"].get("route"))
            refused = Refused(
                500, "internal_error", "Something went wrong here; the request id leads to the log."
            )
        elif refused.status >= 500:
            _log.warning("request_unavailable", code=refused.code, error=str(error.__cause__ or error))
        if answer.status:
            raise error  # the head is out: the server must cut the connection
        headers = [*problem_headers(refused), *scope["state"].get("extra_headers", ())]
        cut_off = isinstance(refused, BodyRefused)
        if cut_off:
            headers.append((b"connection", b"close"))
        body = problem_body(refused, scope["state"]["request_id"], self._base_url)
        await answer.send_all(refused.status, headers, body, open_end=cut_off)
        if cut_off:
            await discard_body(receive)
            await answer.end()

    def _cors(self, headers: Mapping[bytes, bytes]) -> list[Header]:
        found = [(b"vary", b"Origin")]
        origin, host = headers.get(b"origin"), headers.get(b"host", b"")
        if origin and self._parts.access.origin_allowed(origin.decode("latin-1"), host.decode("latin-1")):
            found += [(b"access-control-allow-origin", origin), CORS_EXPOSE]
        return found


def request_id_of(given: bytes | None) -> str:
    """The caller's request id when it is harmless in headers and logs, else one of ours."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return "req_" + randbytes(12).hex()  # different, not secret


def _is_preflight(scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
    return (
        scope["method"] == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers
    )
