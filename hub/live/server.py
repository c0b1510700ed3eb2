"""The web server of a node: uvicorn, with connections that can be taken away, and an end that does not hang.

`serve` runs until SIGTERM or SIGINT. Then it stops to accept, tells live connections to come back elsewhere, spread
over a moment, lets running requests finish, and returns.
"""

import logging
import re
import signal
import socket
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from hub.errors import ConfigError
from hub.live.detach import protocol_class
from hub.live.edge import Edge
from hub.live.handshake import WebSocketHandshake

BACKLOG: Final = 4_096  # a node that restarts gets its clients back at once
GRACEFUL_SECONDS: Final = 5

_TOKEN = re.compile(r"(?i)([?&](?:token|access_token)=)[^&\s]*")


class HideTokens(logging.Filter):
    """Takes `?token=…` out of access lines, whatever formats them later."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without its tokens."""
        if isinstance(record.args, tuple):
            record.args = tuple(
                _TOKEN.sub(r"\1[redacted]", value) if isinstance(value, str) else value
                for value in record.args
            )
        return True


_hide_tokens = HideTokens()


def listen(host: str, port: int, reuse_port: bool = True) -> list[socket.socket]:
    """Bound sockets for every address of a host name. With `reuse_port` several nodes of one machine share the port.

    Raises ConfigError with a sentence when the address cannot be used.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, found_address in dict.fromkeys(found):
            bound = socket.socket(family, kind, protocol)
            sockets.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port and hasattr(socket, "SO_REUSEPORT"):
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Port 0: the same free port on every address.
            actual = sockets[0].getsockname()[1] if port == 0 and len(sockets) > 1 else port
            bound.bind((found_address[0], actual, *found_address[2:]))
    except OSError as error:
        for bound in sockets:
            bound.close()
        raise ConfigError(
            f"CLARION_HOST {host!r} with CLARION_PORT {port} cannot be listened on: {error.strerror or error}."
        ) from error
    return sockets


class HubServer(uvicorn.Server):
    """A uvicorn server that ends its live connections first."""

    def __init__(
        self, config: uvicorn.Config, edge: Edge, on_started: Callable[[], None] | None = None
    ) -> None:
        super().__init__(config)
        self._edge = edge
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; then say so."""
        await super().startup(sockets)
        if self.started and self._on_started is not None:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to accept first, so that nobody comes back to a node that leaves."""
        for server in self.servers:
            server.close()
        for bound in sockets or []:
            bound.close()
        await self._edge.drain()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """A signal ends `serve`; it is not raised again, since this is the program's orderly end."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def make_server(
    app: ASGIApp,
    edge: Edge,
    *,
    trusted_proxies: Sequence[str] = (),
    on_started: Callable[[], None] | None = None,
) -> HubServer:
    """A server for an application with `live_routes(edge)`. Give its `serve` the sockets of `listen`."""
    logging.getLogger("uvicorn.access").addFilter(_hide_tokens)
    config = uvicorn.Config(
        app,
        http=protocol_class(edge.wheel),
        ws=WebSocketHandshake,
        ws_per_message_deflate=False,
        loop="none",
        log_config=None,
        backlog=BACKLOG,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        server_header=False,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
        interface="asgi3",
    )
    return HubServer(config, edge, on_started)


async def serve(
    app: ASGIApp,
    edge: Edge,
    sockets: list[socket.socket],
    *,
    trusted_proxies: Sequence[str] = (),
    on_started: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; `on_started` is called when connections are taken."""
    server = make_server(app, edge, trusted_proxies=trusted_proxies, on_started=on_started)
    await server.serve(sockets)
