"""How an endpoint takes its connection away from uvicorn: the transport moves to another protocol object.

`scope["extensions"]["clarion.handover"]` holds an `HttpHandover` or a `WebSocketHandover`. After `take` the endpoint
returns without sending a response; uvicorn forgets the connection. What of uvicorn is undocumented stands in this file
alone and is pinned by tests/integration/test_live_edge_detach.py. Requests with slow or huge heads are cut off here.
"""

import asyncio
import logging
import sys
from base64 import b64decode
from binascii import b2a_base64
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha1
from http import HTTPStatus
from math import inf
from typing import Any, Final
from urllib.parse import unquote

from httptools import HttpParserUpgrade
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import get_client_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from hub.live.wheel import NOT_DUE, Wheel

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("uvicorn.access")

EXTENSION: Final = "clarion.handover"
HEAD_SECONDS: Final = 10.0  # for the request's head …
BODY_SECONDS: Final = 60.0  # … and for its body
HEAD_BYTES: Final = 64 * 1024
HEAD_LINES: Final = 200

# What a connection waits for.
_NOTHING: Final = "nothing"
_HEAD: Final = "head"
_BODY: Final = "body"
_NEXT: Final = "next request"

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\n%b%b\r\n"
)

Scope = Mapping[str, Any]


def log_access(scope: Scope, status: int, level: int = logging.INFO) -> None:
    """One access line, without the query: it may hold a token. Connections that live on are counted, and told at debug."""
    if not access_logger.isEnabledFor(level):
        return
    access_logger.log(
        level,
        '%s - "%s %s HTTP/%s" %d',
        get_client_addr(scope),  # type: ignore[arg-type]
        scope.get("method", "WebSocket"),
        scope["path"],
        scope["http_version"],
        status,
    )


class _HeadTooLarge(Exception):
    """Raised inside the parser's callback; uvicorn then answers 400 and closes."""


class DetachableHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol, with deadlines for what a client sends, and a transport that can be taken away."""

    wheel: Wheel  # set on a subclass by `protocol_class`

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.due_tick = NOT_DUE
        self._head_bytes = 0
        self._chunk_bytes = 0
        self._in_head = True
        self._awaited = _NOTHING
        self._deadline = inf
        self._armed_for = inf

    # ------------------------------------------------------------ deadlines

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # As uvicorn does, without the addresses: each costs a system call, and memory as long as the transport lives.
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        self.scheme = "https" if is_ssl(transport) else "http"
        self._expect(_HEAD, HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self.wheel.cancel(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._chunk_bytes = len(data)
        if self._in_head:
            self._head_bytes += self._chunk_bytes
        super().data_received(data)
        # A request that came whole needs no deadline; most do.
        if not self._in_head:
            if self._awaited is not _BODY:
                self._expect(_BODY, BODY_SECONDS)
        elif self._head_bytes:
            if self._awaited is not _HEAD:
                self._expect(_HEAD, HEAD_SECONDS)
            # uvicorn's protocol counts nothing, and httptools holds a header until it is whole.
            if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The head of the request is too large.")

    def on_headers_complete(self) -> None:
        if len(self.headers) > HEAD_LINES:
            raise _HeadTooLarge
        self._in_head = False
        self._head_bytes = 0
        # Proxies are known by their address, and lines of the log name the client's. Nothing asks for the server's own.
        is_asked_for = not self.parser.should_upgrade() or self.config.proxy_headers
        if self.client is None and (is_asked_for or access_logger.isEnabledFor(logging.DEBUG)):
            self.client = get_remote_addr(self.transport)
        self.scope["client"] = self.client
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        self._awaited = _NOTHING
        self._deadline = inf
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """As uvicorn's, without a timer of the loop for each answer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self._expect(_NEXT, self.timeout_keep_alive)

    def _expect(self, awaited: str, seconds: float) -> None:
        """Set a deadline. The wheel is left as it is when it turns before that: `on_time` then looks again."""
        self._awaited = awaited
        self._deadline = deadline = self.wheel.now() + seconds
        if self.due_tick == NOT_DUE or deadline < self._armed_for:
            self._armed_for = deadline
            self.wheel.schedule(self, deadline)

    def on_time(self, now: float) -> None:
        """The client took too long to say what it wants, or wants nothing more."""
        if now < self._deadline:
            if self._deadline < inf:
                self._expect(self._awaited, self._deadline - now)
        elif self._awaited is _NEXT:
            self.transport.close()
        else:
            self.transport.abort()

    # ------------------------------------------------------------ the hand-over

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.scope["extensions"] = {EXTENSION: HttpHandover(self, cycle)}  # type: ignore[dict-item]
        super()._start_asgi_task(cycle, app)

    def handle_websocket_upgrade(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # type: ignore[redundant-expr]  # None at first
            # The answer that is still to come would get into the frames, or its endpoint would take the connection too.
            self.send_400_response("A WebSocket cannot be opened while an earlier request is being answered.")
            return
        upgrade = sys.exception()  # uvicorn handles the parser's
        if isinstance(upgrade, HttpParserUpgrade) and upgrade.args[0] < self._chunk_bytes:
            # RFC 6455 §4.1: the client waits. What it sent is behind the request in the same piece, which uvicorn drops.
            self.send_400_response("Frames may be sent when the WebSocket is open.")
            return
        self._in_head, self._head_bytes = True, 0  # no deadline of ours any more
        self.wheel.cancel(self)
        self.connections.discard(self)
        self.parser = None  # type: ignore[assignment]  # it refers back to the protocol
        WebSocketHandshake(self).begin(self.scope["method"])

    def forget(self) -> None:
        """Uvicorn is done with this connection, though it lives on."""
        self.wheel.cancel(self)
        self.connections.discard(self)
        self.pipeline.clear()
        self.flow.resume_reading()
        self.parser = None  # type: ignore[assignment]  # it refers back to the protocol


def protocol_class(wheel: Wheel) -> type[DetachableHttp]:
    """The protocol class for one server: uvicorn makes the objects, so what they share hangs on their class."""
    return type("HubHttp", (DetachableHttp,), {"wheel": wheel})


class HttpHandover:
    """The right to take an HTTP connection away, once, before a response began; and two short cuts past ASGI."""

    __slots__ = ("_cycle", "_protocol")

    def __init__(self, protocol: DetachableHttp, cycle: RequestResponseCycle) -> None:
        self._protocol: DetachableHttp | None = protocol
        self._cycle: RequestResponseCycle | None = cycle

    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """What uvicorn adds to every response: date and server."""
        return [] if self._protocol is None else self._protocol.server_state.default_headers

    def body(self) -> bytes | None:
        """The request's body when all of it is here; None while some of it is on its way."""
        cycle = self._cycle
        return None if cycle is None or cycle.more_body else bytes(cycle.body)

    def respond(self, status: int, head: bytes, body: bytes) -> bool:
        """Write a whole response in one piece; `head`: ready-made header lines. False: not now, send it over ASGI."""
        protocol, cycle = self._protocol, self._cycle
        if protocol is None or cycle is None or cycle.response_started:
            return False
        if cycle.disconnected or cycle.flow.write_paused or cycle.scope["method"] == "HEAD":
            return False
        defaults = _default_lines(protocol.server_state.default_headers)
        close = b"" if cycle.keep_alive else b"connection: close\r\n"
        cycle.transport.write(b"".join((STATUS_LINE[status], defaults, head, close, b"\r\n", body)))
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        self._protocol = self._cycle = None  # else only the garbage collector would find the request
        return True

    def take(self, taker: asyncio.Protocol) -> asyncio.Transport | None:
        """The transport, which now calls `taker`; None when the client has gone. The endpoint must send nothing."""
        protocol, cycle = self._protocol, self._cycle
        self._protocol = self._cycle = None
        if protocol is None or cycle is None:
            raise RuntimeError("A connection can be taken once.")
        if cycle.response_started:
            raise RuntimeError("A response has begun already.")
        transport = protocol.transport
        is_gone = cycle.disconnected or transport.is_closing()
        cycle.disconnected = True  # uvicorn then expects no response
        if is_gone:
            return None
        protocol.forget()
        transport.set_protocol(taker)
        return transport


_made_lines: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")


def _default_lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Uvicorn's headers as lines; it makes a new list once a second, for the date."""
    global _made_lines  # noqa: PLW0603 - one server in a process
    if _made_lines[0] is not headers:
        _made_lines = (headers, b"".join([b"%b: %b\r\n" % pair for pair in headers]))
    return _made_lines[1]


class WebSocketHandshake(asyncio.Protocol):
    """A WebSocket connection during its handshake; an endpoint takes it or refuses it.

    What uvicorn's HTTP protocol parsed is used as it is. Nothing is read until the endpoint has decided.
    """

    def __init__(self, http: DetachableHttp) -> None:
        self._config = http.config
        self._state = http.server_state
        self._default_headers = http.server_state.default_headers
        self._scope: dict[str, Any] = _websocket_scope(http)
        self._scope["extensions"] = {"websocket.http.response": {}, EXTENSION: WebSocketHandover(self)}
        self._refusal: tuple[int, list[tuple[bytes, bytes]], bytes] | None = None
        self._accept = b""
        self.transport: asyncio.Transport | None = http.transport
        self.transport.pause_reading()
        self.transport.set_protocol(self)
        self._state.connections.add(self)  # type: ignore[arg-type]

    def begin(self, method: str) -> None:
        """Check the request (RFC 6455 §4.2.1) and ask the application."""
        try:
            self._accept = accept_of(method, self._scope["http_version"], self._scope["headers"])
        except HandshakeRefused as refused:
            text = f"Failed to open a WebSocket connection: {refused}.\n"
            self._respond(refused.status, refused.headers, text.encode())
            return
        task = asyncio.get_running_loop().create_task(self._run())
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    # ------------------------------------------------------------ the transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._leave()

    def eof_received(self) -> bool | None:
        return None

    def shutdown(self) -> None:
        """The server goes down during a handshake."""
        if self.transport is not None:
            self.transport.close()

    # ------------------------------------------------------------ ASGI, as far as it is needed

    async def _run(self) -> None:
        try:
            await self._config.loaded_app(self._scope, self._receive, self._send)
        except Exception:
            logger.exception("a WebSocket handshake failed")
        if self.transport is not None:
            self._respond(500, [], b"Internal Server Error\n")

    async def _receive(self) -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def _send(self, message: Mapping[str, Any]) -> None:
        match message["type"]:
            case "websocket.http.response.start":
                self._refusal = (message["status"], list(message.get("headers", [])), b"")
            case "websocket.http.response.body" if self._refusal is not None:
                status, headers, body = self._refusal
                self._refusal = (status, headers, body + message.get("body", b""))
                if not message.get("more_body", False):
                    self._respond(*self._refusal)
            case "websocket.close":
                self._respond(403, [], b"")
            case other:
                raise RuntimeError(f"A hand-over or a refusal is expected, not {other}.")

    def _respond(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        transport = self.transport
        if transport is None:
            return
        kept = [pair for pair in headers if pair[0].lower() not in (b"content-length", b"connection")]
        kept += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        transport.write(response_head(status, [*self._default_headers, *kept]) + body)
        self._scope["client"] = self._scope["client"] or get_remote_addr(transport)
        transport.close()
        log_access(self._scope, status)
        self._leave()

    def _leave(self) -> None:
        self.transport = None
        self._state.connections.discard(self)
        self._scope.get("extensions", {}).clear()

    def hand_over(self, taker: asyncio.Protocol, subprotocol: str | None) -> asyncio.Transport | None:
        """Accept the handshake and give the transport away; None when the client has gone."""
        transport = self.transport
        if transport is None or transport.is_closing():
            self._leave()
            return None
        date = b"".join([b"%b: %b\r\n" % pair for pair in self._default_headers])
        chosen = b"" if subprotocol is None else b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol.encode()
        transport.write(_SWITCHING % (self._accept, chosen, date))
        transport.set_protocol(taker)
        transport.resume_reading()
        log_access(self._scope, 101, logging.DEBUG)
        self._leave()
        return transport


def _websocket_scope(http: DetachableHttp) -> dict[str, Any]:
    """The scope that uvicorn began, as that of a WebSocket."""
    root_path = http.root_path
    raw_path, _, query = http.url.partition(b"?")
    path = raw_path.decode("ascii", "replace")
    headers = http.headers
    return {
        "type": "websocket",
        "asgi": {"version": http.asgi_version, "spec_version": "2.4"},
        "http_version": http.scope["http_version"],
        "scheme": "wss" if http.scheme == "https" else "ws",
        "server": http.server,
        "client": http.client,
        "root_path": root_path,
        "path": root_path + (unquote(path) if "%" in path else path),
        "raw_path": root_path.encode("ascii") + raw_path,
        "query_string": query,
        "headers": headers,
        "subprotocols": [
            text.strip().decode("latin-1")
            for name, value in headers
            if name == b"sec-websocket-protocol"
            for text in value.split(b",")
        ],
        "state": http.scope["state"],
    }


class HandshakeRefused(Exception):
    """The request does not open a WebSocket."""

    def __init__(self, reason: str, status: int = 400, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers


def accept_of(method: str, http_version: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The answer to a handshake's key. `Connection` and `Upgrade` were checked. Raises `HandshakeRefused`."""
    if method != "GET":
        raise HandshakeRefused("only GET opens one", 405, [(b"allow", b"GET")])
    if http_version != "1.1":
        raise HandshakeRefused("it takes HTTP/1.1", 505)
    keys = [value for name, value in headers if name == b"sec-websocket-key"]
    versions = [value for name, value in headers if name == b"sec-websocket-version"]
    if versions != [b"13"]:
        # RFC 6455 §4.4: say which version would do.
        raise HandshakeRefused(
            "invalid Sec-WebSocket-Version header", 400, [(b"sec-websocket-version", b"13")]
        )
    try:
        (key,) = keys
        is_good = len(b64decode(key, validate=True)) == 16
    except ValueError:  # none, several, or no base64
        is_good = False
    if not is_good:
        raise HandshakeRefused("invalid Sec-WebSocket-Key header")
    return b2a_base64(sha1(key + _GUID, usedforsecurity=False).digest(), newline=False)


class WebSocketHandover:
    """The right to take a WebSocket connection away, once."""

    __slots__ = ("_handshake",)

    def __init__(self, handshake: WebSocketHandshake) -> None:
        self._handshake = handshake

    def take(self, taker: asyncio.Protocol, subprotocol: str | None) -> asyncio.Transport | None:
        """Accept with this subprotocol (None: none); None when the client has gone."""
        return self._handshake.hand_over(taker, subprotocol)


def response_head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Status line and headers of a response."""
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())]
    lines += [b"%b: %b\r\n" % pair for pair in headers]
    return b"".join([*lines, b"\r\n"])
