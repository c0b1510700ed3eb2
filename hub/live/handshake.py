"""The opening handshake of a WebSocket: the request is checked, an endpoint decides, and takes the transport or refuses.

What uvicorn's HTTP protocol parsed is used as it is (`hub.live.detach` hands it over). Until the endpoint has decided
nothing is read. A request that opens no WebSocket is refused before the application sees it.
"""

import asyncio
import logging
from base64 import b64decode
from binascii import b2a_base64
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from uvicorn.protocols.utils import get_remote_addr

from hub.live.responses import EXTENSION, log_access, response_head

if TYPE_CHECKING:
    from hub.live.detach import DetachableHttp

logger = logging.getLogger(__name__)

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\n%b%b\r\n"
)


class WebSocketHandshake(asyncio.Protocol):
    """A WebSocket connection during its handshake; an endpoint takes it or refuses it.

    What uvicorn's HTTP protocol parsed is used as it is. Nothing is read until the endpoint has decided.
    """

    def __init__(self, http: "DetachableHttp") -> None:
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


def _websocket_scope(http: "DetachableHttp") -> dict[str, Any]:
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
