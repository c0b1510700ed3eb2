"""A small HTTP server on a free loopback port, for what a test's other side is; what hangs ends when it stops."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WebServer:
    """Serves the routes that a subclass adds. Use it as `async with`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._app = web.Application()
        self._runner: web.AppRunner | None = None
        self._over = asyncio.Event()
        self.port = 0

    def add(self, method: str, path: str, handler: Handler) -> None:
        """One route; to be called before the start."""
        self._app.router.add_route(method, path, handler)

    @property
    def origin(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._runner = web.AppRunner(self._app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        assert self._runner is not None
        await self._runner.cleanup()

    async def hang(self) -> web.Response:
        """Answer nothing as long as the server runs."""
        await self._over.wait()
        return web.Response(status=503)

    def drop(self, request: web.Request) -> web.Response:
        """Cut the connection without an answer."""
        assert request.transport is not None
        request.transport.abort()
        return web.Response(status=500)
