"""Serves the edge with a fake node until a signal comes: `python -m tests.support.live_process asyncio|uvloop`."""

import asyncio
import sys

import uvloop
from starlette.applications import Starlette

from hub.api.live import live_routes
from hub.clock import SystemClock
from hub.live.edge import Edge
from hub.live.server import listen, serve
from tests.support.live_node import FakeGate, FakeNode


async def main() -> None:
    node = FakeNode()
    edge = Edge(node, FakeGate(), SystemClock())
    sockets = listen("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    app = Starlette(routes=live_routes(edge))
    await serve(app, edge, sockets, on_started=lambda: print(port, flush=True))
    print(f"left {len(node.left)}", flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if sys.argv[1] == "uvloop" else None) as runner:
        runner.run(main())
