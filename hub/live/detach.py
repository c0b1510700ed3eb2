"""How an endpoint takes its connection away from uvicorn: the transport moves to another protocol object.

`scope["extensions"]["clarion.handover"]` holds an `HttpHandover`, or a WebSocket's (`hub.live.handshake`). After `take`
the endpoint returns without sending a response; uvicorn forgets the connection. What of uvicorn is undocumented stands
in these two files alone and is pinned by tests/integration/test_live_edge_detach.py. Requests with slow or huge heads
are cut off here.
"""

import asyncio
import logging
import sys
from math import inf
from typing import Any, Final

from httptools import HttpParserUpgrade
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import get_remote_addr, is_ssl
from uvicorn.server import ServerState

from hub.live.handshake import WebSocketHandshake
from hub.live.responses import EXTENSION, access_logger
from hub.live.wheel import NOT_DUE, Wheel

HEAD_SECONDS: Final = 10.0  # for the request's head …
BODY_SECONDS: Final = 60.0  # … and for its body
HEAD_BYTES: Final = 64 * 1024
HEAD_LINES: Final = 200

# What a connection waits for.
_NOTHING: Final = "nothing"
_HEAD: Final = "head"
_BODY: Final = "body"
_NEXT: Final = "next request"


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
