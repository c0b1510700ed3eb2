"""The hub's own WebSocket stack behind an echo route, on a real server in a thread of its own.

Routing, hand-over, frame reader, frame builders and output queue are the product's; only what happens with a message
differs: a text comes back, a binary message is refused with 1003. The live routes are there too, for streams.
"""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

import uvloop
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from hub.api.live import live_routes
from hub.clock import SystemClock
from hub.live.connection import Connection
from hub.live.edge import Edge
from hub.live.limits import Limits
from hub.live.responses import EXTENSION
from hub.live.rfc6455 import Binary, Event, Text, text_frame
from hub.live.server import listen, make_server
from hub.live.websocket import WebSocketConnection
from tests.support.certificate import Certificate
from tests.support.live_node import FakeGate, FakeNode

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
PATIENCE_SECONDS = 10
Address = tuple[str, int]
Answer = TypeVar("Answer")


class EchoConnection(WebSocketConnection):
    """A client of the echo route. `received` counts the bytes that came."""

    __slots__ = ("left", "received")

    def __init__(self, edge: Edge) -> None:
        super().__init__(edge, None, False)
        self.received = 0
        self.left = False

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.received += len(data)  # now: who waits for it may look at what came of it

    def _on_event(self, event: Event) -> None:
        self._session._allowance = 200.0  # floods are another test's
        match event:
            case Text(text):
                self.send(text_frame(text.encode()))
            case Binary():
                self.close(1003, "text only")
            case _:
                super()._on_event(event)

    def on_left(self) -> None:
        super().on_left()
        self.left = True


def waiting_bytes(connection: Connection) -> int:
    """What a connection keeps for a peer that does not read: in its transport, and in its own queue."""
    transport = connection._transport
    in_transport = 0 if transport is None else transport.get_write_buffer_size()
    return in_transport + sum(map(len, connection._output or ()))


class EchoEndpoint:
    def __init__(self, edge: Edge, connections: dict[Address, EchoConnection]) -> None:
        self.edge = edge
        self.connections = connections

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        connection = EchoConnection(self.edge)
        transport = scope["extensions"][EXTENSION].take(connection, None)
        if transport is not None:
            self.edge.add(connection)
            connection.attach(transport)
            self.connections[transport.get_extra_info("peername")] = connection


class EchoServer:
    """What runs in the thread. `call` runs something there and waits for its answer."""

    def __init__(self) -> None:
        self.port = 0
        self.node: FakeNode
        self.edge: Edge
        self.connections: dict[Address, EchoConnection] = {}  # by the client's address
        self.errors: list[str] = []
        self.loop: asyncio.AbstractEventLoop

    def call(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        answer: Future[Answer] = Future()

        def run() -> None:
            try:
                answer.set_result(function(*arguments))
            except Exception as error:  # noqa: BLE001 - it is raised again where `call` was
                answer.set_exception(error)

        self.loop.call_soon_threadsafe(run)
        return answer.result(PATIENCE_SECONDS)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """The server's loop does nothing until the block ends."""
        holding, done = threading.Event(), threading.Event()

        def hold() -> None:
            holding.set()
            done.wait(PATIENCE_SECONDS)

        self.loop.call_soon_threadsafe(hold)
        assert holding.wait(PATIENCE_SECONDS)
        try:
            yield
        finally:
            done.set()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition about objects of the server's thread holds."""

        async def wait() -> None:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not condition():
                    await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(wait(), self.loop).result(PATIENCE_SECONDS + 1)


class _Complaints(logging.Handler):
    """Whatever the hub, the server or the loop complain about is an error of the test."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        self.errors.append(self.format(record))


@contextmanager
def echo_server(
    loop: str = "uvloop",
    limits: Limits | None = None,
    certificate: Certificate | None = None,
    send_buffer_bytes: int | None = None,
) -> Iterator[EchoServer]:
    """Serve until the block ends. With `send_buffer_bytes` the kernel takes little for a peer that does not read."""
    echo = EchoServer()
    started = threading.Event()
    stopped = threading.Event()

    async def serve() -> None:
        echo.loop = asyncio.get_running_loop()
        echo.node = FakeNode()
        chosen = limits or Limits(connect_seconds=600, linger_seconds=600)  # nothing is left to deadlines
        echo.edge = Edge(echo.node, FakeGate(), SystemClock(), chosen)
        route = WebSocketRoute("/echo", EchoEndpoint(echo.edge, echo.connections))
        app = Starlette(routes=[route, *live_routes(echo.edge)])
        sockets = listen("127.0.0.1", 0)
        if send_buffer_bytes is not None:
            # Accepted sockets inherit it.
            sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        echo.port = sockets[0].getsockname()[1]
        server = make_server(app, echo.edge, on_started=started.set)
        if certificate is not None:
            server.config.ssl_certfile = str(certificate.pem)
        serving = asyncio.create_task(server._serve(sockets))
        while not stopped.is_set() and not serving.done():
            await asyncio.sleep(0.01)
        server.should_exit = True
        await serving

    def run() -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(serve())

    complaints = _Complaints(echo.errors)
    loggers = [logging.getLogger(name) for name in ("hub", "asyncio", "uvicorn.error")]
    for logger in loggers:
        logger.addHandler(complaints)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        assert started.wait(PATIENCE_SECONDS), echo.errors
        yield echo
    finally:
        stopped.set()
        thread.join(PATIENCE_SECONDS)
        for logger in loggers:
            logger.removeHandler(complaints)
    assert not thread.is_alive()
    assert not echo.errors, f"the server complained: {echo.errors}"
