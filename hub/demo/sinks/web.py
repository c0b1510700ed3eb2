"""What the sinks on HTTP share: an aiohttp application behind a gate, and a client for what they report."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import aiohttp
from aiohttp import web

from hub.demo.sinks.gate import Gate


class WebSink:
    """An HTTP server on a free port. Add routes to `app` before it starts."""

    def __init__(self) -> None:
        self.app = web.Application()
        self._runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=0.1)
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.gate = Gate(self._protocol, self._transports)

    @property
    def session(self) -> aiohttp.ClientSession:
        """The client, opened when it is first needed."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10), trust_env=False)
        return self._session

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside answering; that it fails is the other side's loss, as with any gateway."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that nobody complains that nobody did

    async def open(self) -> None:
        """Serve."""
        await self._runner.setup()
        await self.gate.open()

    async def close(self) -> None:
        """End for good."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        await self.gate.close()
        await self._runner.cleanup()

    def _protocol(self) -> asyncio.BaseProtocol:
        assert self._runner.server is not None
        protocol: asyncio.BaseProtocol = self._runner.server()
        return protocol

    def _transports(self) -> list[asyncio.BaseTransport]:
        server = self._runner.server
        found = [one.transport for one in server.connections] if server is not None else []
        return [one for one in found if one is not None]
