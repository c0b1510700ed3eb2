"""The real web server around an edge with a fake node, on a free port, in the test's own event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hub.api.live import live_routes
from hub.api.problems import as_refused, problem_body, problem_headers
from hub.clock import SystemClock
from hub.errors import ClarionError
from hub.live.edge import Edge, Forward
from hub.live.limits import Limits
from hub.live.seam import Node
from hub.live.server import HubServer, listen, make_server
from tests.support.live_node import FakeGate, FakeNode


@dataclass
class LiveServer:
    """A running server and what stands behind it. `node`: the fake one, unless a real one was given."""

    node: Any
    gate: FakeGate
    edge: Edge
    server: HubServer
    port: int
    running: asyncio.Task[None]

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def websocket(self) -> str:
        return f"ws://127.0.0.1:{self.port}/connection/websocket"


async def _problem(request: Request, error: Exception) -> Response:
    refused = as_refused(error)
    assert refused is not None
    headers = {name.decode(): value.decode() for name, value in problem_headers(refused)}
    return Response(problem_body(refused, "req", ""), refused.status, headers)


async def _hello(request: Request) -> Response:
    body = await request.body()
    return JSONResponse({"hello": len(body)})


@asynccontextmanager
async def live_server(
    limits: Limits | None = None, forward: Forward | None = None, node: Node | None = None
) -> AsyncIterator[LiveServer]:
    """Serve until the block ends; whatever is still connected is then told to go."""
    node, gate = node or FakeNode(), FakeGate()
    edge = Edge(node, gate, SystemClock(), limits, forward)
    app = Starlette(routes=live_routes(edge), exception_handlers={ClarionError: _problem})
    app.add_route("/hello", _hello, methods=["GET", "POST"])
    sockets = listen("127.0.0.1", 0)
    started = asyncio.Event()
    server = make_server(app, edge, on_started=started.set)
    port = sockets[0].getsockname()[1]
    running = asyncio.create_task(server._serve(sockets))  # not `serve`: signals belong to the test runner
    await asyncio.wait([running, asyncio.create_task(started.wait())], return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    try:
        yield LiveServer(node, gate, edge, server, port, running)
    finally:
        server.should_exit = True
        await running
