"""The outermost layer of every HTTP request: request id, security headers, CORS, problems, counting.

Nothing that goes wrong further in reaches a client as anything but a problem document; what nobody expected is
logged here, once, with its request id. Live connections that take their transport pass through untouched.
"""

import re
import secrets
from time import perf_counter
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.api.body import BodyRefused, ClientGone, discard_body
from hub.api.parts import Parts
from hub.api.problems import as_refused, problem_body, problem_headers
from hub.errors import Refused

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_log = structlog.get_logger(__name__)

SECURITY: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
    (b"cache-control", b"no-store"),
)
"""Sent unless the answer says otherwise: pages bring a policy of their own, static files may be cached."""

CORS_PREFIX: Final = "/v1/me"
CORS_PREFLIGHT: Final = (
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
    (b"access-control-allow-headers", b"Authorization, Content-Type, If-Match, Last-Event-ID, X-Request-Id"),
    (b"access-control-max-age", b"600"),
)
CORS_EXPOSE: Final = (b"access-control-expose-headers", b"ETag, Retry-After, X-Request-Id")


class Shell:
    """Wraps the application. WebSockets and the lifespan go straight through."""

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        self._app = app
        self._parts = parts
        self._base_url = parts.settings.public.url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = request_id_of(headers.get(b"x-request-id"))
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        answer = _Answer(send, [(b"x-request-id", request_id.encode()), *self._cors(scope["path"], headers)])
        started = perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                if _is_preflight(scope, headers):
                    await answer.send_all(204, list(CORS_PREFLIGHT if answer.allows_origin else ()), b"")
                else:
                    await self._app(scope, receive, answer.send)
            except ClientGone:
                pass
            except Exception as error:  # noqa: BLE001  (the last handler: a caller gets a document, never a traceback)
                await self._fail(answer, scope, receive, error)
        if answer.status:
            route = str(state.get("route", "other"))
            self._parts.metrics.http.request(scope["method"], route, answer.status, perf_counter() - started)

    async def _fail(self, answer: "_Answer", scope: Scope, receive: Receive, error: Exception) -> None:
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
        shown = b"" if scope["method"] == "HEAD" else body
        await answer.send_all(refused.status, headers, shown, len(body), open_end=cut_off)
        if cut_off:
            await discard_body(receive)
            await answer.end()

    def _cors(self, path: str, headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        if not path.startswith(CORS_PREFIX):
            return []
        found = [(b"vary", b"Origin")]
        origin, host = headers.get(b"origin"), headers.get(b"host", b"")
        if origin and self._parts.access.origin_allowed(origin.decode("latin-1"), host.decode("latin-1")):
            found += [(b"access-control-allow-origin", origin), CORS_EXPOSE]
        return found


class _Answer:
    """Sends the response with our headers added, and remembers its status."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._headers = headers
        self.status = 0
        self.allows_origin = any(name == b"access-control-allow-origin" for name, _ in headers)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = list(message.get("headers", ()))
            named = {name.lower() for name, _ in given}
            message["headers"] = [
                *given,
                *self._headers,
                *(pair for pair in SECURITY if pair[0] not in named),
            ]
        await self._send(message)

    async def send_all(
        self,
        status: int,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        length: int | None = None,
        *,
        open_end: bool = False,
    ) -> None:
        if status != 204:
            headers.append((b"content-length", str(len(body) if length is None else length).encode()))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body, "more_body": open_end})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})


def request_id_of(given: bytes | None) -> str:
    """The caller's request id when it is harmless in headers and logs, else one of ours."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return "req_" + secrets.token_hex(12)


def _is_preflight(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    return (
        scope["method"] == "OPTIONS"
        and scope["path"].startswith(CORS_PREFIX)
        and b"origin" in headers
        and b"access-control-request-method" in headers
    )
