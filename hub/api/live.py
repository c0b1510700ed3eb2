"""The live routes: `/connection/websocket`, `GET /v1/me/stream`, `POST /v1/me/presence`.

Each checks origin, room and credentials, then takes its connection away from uvicorn and returns. Refusals are raised
as `ClarionError` on HTTP, which the API turns into problem documents; a refused WebSocket handshake gets one here.
"""

import logging
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct
from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from hub.access import is_same_origin_call
from hub.api.auth import bearer_of, cookie_of
from hub.api.body import read_body
from hub.api.problems import as_refused, not_found, problem_body, problem_headers, unauthorized
from hub.decoding import decode_json
from hub.errors import ClarionError, Refused, TokenError
from hub.live import sse
from hub.live.detach import HttpHandover
from hub.live.edge import Edge
from hub.live.eventstream import EventStreamConnection
from hub.live.handshake import WebSocketHandover
from hub.live.responses import EXTENSION, log_access, response_head
from hub.live.seam import Identity
from hub.live.websocket import WebSocketConnection

WEBSOCKET_PATH: Final = "/connection/websocket"
STREAM_PATH: Final = "/v1/me/stream"
PRESENCE_PATH: Final = "/v1/me/presence"

_STREAM_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"private, no-cache, no-store, must-revalidate, max-age=0"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
)

_NO_QUERY: Final = QueryParams()

Headers = Mapping[bytes, bytes]


class PresenceRequest(Struct, forbid_unknown_fields=True):
    """Whether the page of an SSE connection is in front."""

    connection: str
    visible: bool


_presence = msgspec.json.Decoder(PresenceRequest)


def live_routes(edge: Edge) -> list[BaseRoute]:
    """The routes of one node's edge."""
    return [
        WebSocketRoute(WEBSOCKET_PATH, WebSocketEndpoint(edge)),
        Route(WEBSOCKET_PATH, _upgrade_required),
        Route(STREAM_PATH, StreamEndpoint(edge)),
        Route(PRESENCE_PATH, PresenceEndpoint(edge)),
    ]


async def _upgrade_required(_request: object) -> Response:
    return Response("This address speaks WebSocket.\n", 426, {"upgrade": "websocket"}, "text/plain")


def _check_origin(edge: Edge, headers: Headers) -> None:
    origin = headers.get(b"origin")
    host = headers.get(b"host", b"").decode("latin-1")
    if not edge.gate.origin_allowed(None if origin is None else origin.decode("latin-1"), host):
        raise Refused(
            403, "forbidden", "Pages of this origin may not connect; CLARION_ALLOWED_ORIGINS names who may."
        )


def _check_method(scope: Scope, *allowed: str) -> None:
    if scope["method"] not in allowed:
        allow = ", ".join(allowed)
        scope.setdefault("state", {})["extra_headers"] = [(b"allow", allow.encode())]
        raise Refused(405, "method_not_allowed", f"Only {allow} work here.")


async def _identify(edge: Edge, headers: Headers, query_token: str | None, unsafe: bool) -> Identity:
    """The user of a request: Bearer, else `?token=`, else the cookie of our own pages. Raises what 401 and 403 mean."""
    token = bearer_of(headers) or query_token
    if token:
        return await edge.gate.authenticate(token)
    session = cookie_of(headers)
    if session is None:
        raise unauthorized()
    if not is_same_origin_call(edge.gate.origins, headers, unsafe):
        raise Refused(403, "cross_origin", "A session counts only on our own pages; send a token as Bearer.")
    return await edge.gate.authenticate_session(session)


class WebSocketEndpoint:
    """`GET /connection/websocket`: the Centrifuge client protocol, in JSON."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept the handshake and let the connection live on by itself, or refuse it with a problem document."""
        headers = dict(scope["headers"])
        try:
            _check_origin(self._edge, headers)
            query = QueryParams(scope["query_string"]) if scope["query_string"] else _NO_QUERY
            subprotocol = _subprotocol(scope["subprotocols"], query)
            session = await self._session(headers)
            self._edge.check_room()
        except ClarionError as error:
            refused = as_refused(error) or Refused(500, "internal_error", "Something went wrong here.")
            fields = {name.decode(): value.decode() for name, value in problem_headers(refused)}
            await Response(problem_body(refused, "", ""), refused.status, fields)(scope, receive, send)
            return
        connection = WebSocketConnection(self._edge, session, query.get("cf_ws_frame_ping_pong") == "true")
        handover: WebSocketHandover = scope["extensions"][EXTENSION]
        transport = handover.take(connection, subprotocol)
        if transport is not None:
            self._edge.add(connection)
            connection.attach(transport)

    async def _session(self, headers: Headers) -> Identity | None:
        """Who the cookie belongs to. A bad one counts as none: the client may send a token."""
        session = cookie_of(headers)
        if session is None or not is_same_origin_call(self._edge.gate.origins, headers, unsafe=False):
            return None
        try:
            return await self._edge.gate.authenticate_session(session)
        except TokenError:
            return None


def _subprotocol(offered: list[str], query: QueryParams) -> str | None:
    """The subprotocol to select. Protobuf is refused: a client that wants it would not understand JSON."""
    wants_protobuf = "protobuf" in (query.get("cf_protocol"), query.get("format"))
    if "centrifuge-json" in offered and not wants_protobuf:
        return "centrifuge-json"
    if wants_protobuf or "centrifuge-protobuf" in offered:
        raise Refused(
            400, "malformed_request", "Only the JSON form of the Centrifuge protocol is spoken here."
        )
    return None


class StreamEndpoint:
    """`GET /v1/me/stream`: server-sent events."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Join, write the first events, and let the connection live on by itself. Raises `ClarionError`."""
        scope.setdefault("state", {})["route"] = STREAM_PATH
        if scope["method"] == "OPTIONS":
            await Response(None, 204, {"allow": "GET, HEAD, OPTIONS"})(scope, receive, send)
            return
        _check_method(scope, "GET", "HEAD")
        headers = dict(scope["headers"])
        _check_origin(self._edge, headers)
        query = QueryParams(scope["query_string"])
        identity = await _identify(self._edge, headers, query.get("token"), unsafe=False)
        if scope["method"] == "HEAD":
            fields = {name.decode(): value.decode() for name, value in _STREAM_HEADERS}
            await Response(None, 200, fields)(scope, receive, send)
            return
        self._edge.check_room()
        await self._begin(scope, headers, identity, query)

    async def _begin(self, scope: Scope, headers: Headers, identity: Identity, query: QueryParams) -> None:
        given = headers.get(b"last-event-id", b"").decode("latin-1") or query.get("last_event_id", "")
        cursor = sse.decode_cursor(given)
        chunked = scope["http_version"] != "1.0"
        connection = EventStreamConnection(self._edge, chunked)
        self._edge.add(connection)
        try:
            first = await connection.join(identity, cursor, told_unknown=bool(given) and cursor is None)
        except BaseException:
            connection.abandon()
            raise
        handover: HttpHandover = scope["extensions"][EXTENSION]
        sent = [*handover.default_headers(), *_STREAM_HEADERS, *_stream_headers(scope, headers, chunked)]
        transport = handover.take(connection)
        if transport is None:
            connection.abandon()
            return
        log_access(scope, 200, logging.DEBUG)
        connection.start(transport, response_head(200, sent), first)


def _stream_headers(scope: Scope, headers: Headers, chunked: bool) -> list[tuple[bytes, bytes]]:
    """What belongs to this request: framing, CORS (the origin was checked), the request's id."""
    # The stream's end is the connection's: a client that is not told would send its next request into it (RFC 9112 §9.6).
    found = [(b"vary", b"Origin"), (b"connection", b"close")]
    if chunked:
        found.append((b"transfer-encoding", b"chunked"))
    if origin := headers.get(b"origin"):
        found.append((b"access-control-allow-origin", origin))
    if request_id := scope["state"].get("request_id"):
        found.append((b"x-request-id", request_id.encode()))
    return found


class PresenceEndpoint:
    """`POST /v1/me/presence`: whether the page of an SSE connection is in front."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """204 when it is set here, 202 when other nodes were told, 404 without them. Raises `ClarionError`."""
        scope.setdefault("state", {})["route"] = PRESENCE_PATH
        if scope["method"] == "OPTIONS":
            await Response(None, 204, {"allow": "POST, OPTIONS"})(scope, receive, send)
            return
        _check_method(scope, "POST")
        headers = dict(scope["headers"])
        identity = await _identify(self._edge, headers, None, unsafe=True)
        raw = await read_body(receive, headers, 4_096, "request_too_large")
        request = decode_json(_presence, raw)
        status = await self._set(identity.user_id, request)
        await Response(None, status)(scope, receive, send)

    async def _set(self, user_id: str, request: PresenceRequest) -> int:
        if self._edge.set_presence(user_id, request.connection, request.visible):
            return 204
        if self._edge.forward_presence is None or len(request.connection) > 64:
            raise not_found("That connection")
        await self._edge.forward_presence(user_id, request.connection, request.visible)
        return 202
